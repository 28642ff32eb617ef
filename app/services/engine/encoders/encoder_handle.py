"""A loaded encoder as the event loop sees it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from app.services.caller import Caller
from app.services.engine.scheduler.handle import INPUTS_AT_ONCE, Handle, check_input_tokens
from app.services.engine.scheduler.running_generation import RunningGeneration
from app.services.engine.scheduler.running_request import RunningEmbedding, RunningScoring
from app.services.errors import InvalidRequest, NoCompletions
from app.services.facts import AdapterFacts, SlotFacts
from app.services.generation import GenerationRequest, RankRequest, ScoringRequest
from app.services.inference import EngineModel

if TYPE_CHECKING:  # it imports MLX, which takes seconds and belongs on the engine thread
    from app.services.engine.encoders.loaded_encoder import LoadedEncoder


class EncoderHandle(Handle, EngineModel):
    """A model that makes vectors, or ranks documents. What only a model that writes can do is refused."""

    _model: "LoadedEncoder"

    async def rank(self, request: RankRequest, caller: Caller) -> RunningEmbedding:
        """Tokenize the query with a few documents at a time, then queue all pairs."""
        model = self._model
        running = RunningEmbedding(self._cancel, caller)
        model.check_ranking(request)
        inputs: list[Any] = []
        for start in range(0, len(request.documents), INPUTS_AT_ONCE):  # so that other prompts come in between
            inputs += await self._off_loop(model.tokenize_pairs, request, start, start + INPUTS_AT_ONCE)
            check_input_tokens(sum(map(len, inputs)), "documents")
        ranking = await self._off_loop(model.make_ranking, inputs, running)
        self._queue(partial(model.scheduler.embed, ranking), [running])
        return running

    def adapters(self) -> list[AdapterFacts]:
        """There are none: they are for models that write."""
        return []

    def set_adapters(self, scales: dict[int, float]) -> None:
        """Refuse them."""
        if scales:
            raise InvalidRequest("lora: this model has no adapters", param="lora")

    async def generate(self, requests: Sequence[GenerationRequest], caller: Caller) -> list[RunningGeneration]:
        """Refuse to write."""
        self._refuse()

    async def score(self, request: ScoringRequest, caller: Caller) -> RunningScoring:
        """Refuse: it knows no probabilities of texts."""
        self._refuse()

    async def render(self, request: GenerationRequest) -> str:
        """Refuse: there is no chat template."""
        self._refuse()

    async def shared_prefix(self, request: GenerationRequest) -> list[int]:
        """Refuse: there are no conversations."""
        self._refuse()

    async def count(self, request: GenerationRequest) -> int:
        """Refuse: there are no conversations."""
        self._refuse()

    async def measure(self, request: GenerationRequest) -> int:
        """Refuse: there are no conversations."""
        self._refuse()

    async def slots(self) -> list[SlotFacts]:
        """There are none."""
        return []

    async def save_slot(self, slot: int, path: Path) -> tuple[int, int]:
        """Refuse: there are none."""
        self._refuse()

    async def restore_slot(self, slot: int, path: Path) -> tuple[int, int]:
        """Refuse: there are none."""
        self._refuse()

    async def erase_slot(self, slot: int) -> int:
        """Refuse: there are none."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise NoCompletions(self.facts.id, self.facts.task)
