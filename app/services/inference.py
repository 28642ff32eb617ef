"""What the services need of an engine: a protocol, so that they import no MLX and a test may bring its own engine."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from app.services.caller import Caller
from app.services.engine.scheduler.meter import Meter
from app.services.engine.scheduler.running_generation import RunningGeneration
from app.services.engine.scheduler.running_request import RunningEmbedding, RunningScoring
from app.services.errors import AppError
from app.services.facts import AdapterFacts, DeviceFacts, GroupFacts, ModelFacts, SlotFacts
from app.services.generation import EmbeddingRequest, GenerationRequest, RankRequest, ScoringRequest
from app.services.model_folder import ModelFolder


class EngineModel(Protocol):
    """A model that an engine has loaded. For the event loop; each method raises AppError for what it refuses."""

    @property
    def facts(self) -> ModelFacts:
        """What there is to know of it."""

    def adapters(self) -> list[AdapterFacts]:
        """Give its LoRA adapters, with the scales that count where a request says nothing."""

    def set_adapters(self, scales: dict[int, float]) -> None:
        """Set those scales, by the adapters' numbers; 0 for those that are not named."""

    async def generate(self, requests: Sequence[GenerationRequest], caller: Caller) -> list[RunningGeneration]:
        """Begin the answers to several requests: all of them or, with an AppError, none.

        By the caller it is decided who comes next: callers share the batch.
        """

    async def embed(self, request: EmbeddingRequest, caller: Caller) -> RunningEmbedding:
        """Begin to turn texts into vectors."""

    async def score(self, request: ScoringRequest, caller: Caller) -> RunningScoring:
        """Begin to compute how likely texts are behind prompts."""

    async def rank(self, request: RankRequest, caller: Caller) -> RunningEmbedding:
        """Begin to rank documents: a number (documents, 1) for each, whose logistic function is its relevance."""

    async def render(self, request: GenerationRequest) -> str:
        """Give the prompt that a conversation becomes, as text."""

    async def shared_prefix(self, request: GenerationRequest) -> list[int]:
        """Give the tokens that all conversations begin with that begin with a request's messages and have its tools."""

    async def count(self, request: GenerationRequest) -> int:
        """Count the tokens of the prompt that a request becomes, whether or not it fits."""

    async def measure(self, request: GenerationRequest) -> int:
        """Count them as `generate` would: raises PromptTooLong, and what else `generate` refuses."""

    async def tokenize(self, content: tuple[str | int, ...], *, special: bool) -> list[tuple[int, bytes]]:
        """Give the token ids of text and ids, each with its bytes; `special` adds a prompt's first and last token."""

    async def detokenize(self, tokens: list[int]) -> str:
        """Give the text of token ids, control tokens too."""

    async def slots(self) -> list[SlotFacts]:
        """Say what is in each slot of the batch."""

    async def save_slot(self, slot: int, path: Path) -> tuple[int, int]:
        """Write what an idle slot holds to a file. Returns tokens and bytes."""

    async def restore_slot(self, slot: int, path: Path) -> tuple[int, int]:
        """Read such a file into an idle slot. Returns tokens and bytes."""

    async def erase_slot(self, slot: int) -> int:
        """Forget what an idle slot holds, in memory and on disk. Returns the tokens."""

    async def unload(self, *, now: bool = False) -> None:
        """Take it out of memory. Its answers are finished first unless `now`, which ends them with an error."""


class Engine(Protocol):
    """Loads models and computes with them, on threads of its own. For the event loop."""

    @property
    def back_end(self) -> str:
        """Where it computes: metal, cuda or cpu; unknown until it is ready."""

    @property
    def device(self) -> DeviceFacts | None:
        """The GPU that it computes with; None on the CPU, and until it is ready."""

    @property
    def group(self) -> GroupFacts | None:
        """The machines that serve the model together; None where it is this one alone, and before its load."""

    @property
    def meter(self) -> Meter:
        """What it counts."""

    def start(self) -> None:
        """Start its threads. Returns at once."""

    def stop(self) -> None:
        """End them after the current step. Answers under way get an error. Blocks for a few seconds at most."""

    def stuck_for(self) -> float:
        """Seconds that the step under way has taken, if that is far more than it should; else 0."""

    async def load(self, folder: ModelFolder, progress: Callable[[float], None]) -> EngineModel:
        """Load a model beside those that are loaded. Raises LoadFailed; cancelling this gives the load up.

        `progress` is called with 0 to 1, on a thread of the engine.
        """

    async def cache_bytes(self, config: Mapping[str, Any], tokens: int) -> int:
        """Give the bytes that admission counts for a row of so many tokens, of the model of a config.json.

        Raises LoadFailed.
        """

    def give_up_loads(self, error: AppError) -> None:
        """Have those who wait for a load get an error."""
