"""What the handles of all kinds of models have in common: vectors, tokens, and how work gets to its thread."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

import structlog

from app.services.caller import Caller
from app.services.engine.scheduler.commands import CommandQueue
from app.services.engine.scheduler.model_scheduler import ModelScheduler
from app.services.engine.scheduler.running_generation import Outbox
from app.services.engine.scheduler.running_request import RunningEmbedding, RunningRequest
from app.services.errors import AppError, EngineFailed, ModelUnloaded, UnprocessableBody
from app.services.facts import ModelFacts
from app.services.generation import EmbeddingRequest

if TYPE_CHECKING:  # it imports MLX, which takes seconds and belongs on the engine thread
    from app.services.engine.scheduler.embedding import Embedding

log = structlog.get_logger()

_MAX_INPUT_TOKENS = 2**20  # of one request for vectors or scores
INPUTS_AT_ONCE = 16  # texts of one request that are tokenized in one go
_PARTS_AT_ONCE = 1024  # texts and ids of one request that are tokenized in one go


class Loaded(Protocol):
    """A loaded model. Its methods are for the thread of prompts, but for the checks; each may raise AppError."""

    @property
    def facts(self) -> ModelFacts:
        """What there is to know of it."""

    @property
    def scheduler(self) -> ModelScheduler:
        """What computes with it."""

    def check_embedding(self, request: EmbeddingRequest) -> None:
        """Raise AppError for what can be refused without a look at the texts."""

    def tokenize_inputs(self, request: EmbeddingRequest, start: int, end: int) -> Sequence[Any]:
        """Check and tokenize some of the texts that become vectors. Each has a length."""

    def make_embedding(
        self, request: EmbeddingRequest, inputs: Sequence[Any], running: RunningEmbedding
    ) -> "Embedding":
        """Make what computes the vectors of texts that are tokenized."""

    def check_length(self, parts: Sequence[str | int], param: str) -> None:
        """Raise AppError for more text than is tokenized for one request."""

    def tokenize(self, content: tuple[str | int, ...], *, special: bool) -> list[tuple[int, bytes]]:
        """Give the token ids of text and ids, each with its bytes."""

    def detokenize(self, tokens: list[int]) -> str:
        """Give the text of token ids."""


P = ParamSpec("P")
T = TypeVar("T")


class Handle:
    """Hands the work to one of two threads: the engine's, or the only one of `prompts`, which renders and tokenizes."""

    def __init__(
        self,
        model: Loaded,
        *,
        commands: CommandQueue,
        prompts: Executor,
        outbox: Outbox,
        unload: Callable[[bool], None],  # on the engine thread; with True it ends the answers under way
    ) -> None:
        self._model: Loaded = model
        self._commands = commands
        self._prompts = prompts
        self._outbox = outbox
        self._unload = unload

    @property
    def facts(self) -> ModelFacts:
        """What there is to know of the model."""
        return self._model.facts

    async def embed(self, request: EmbeddingRequest, caller: Caller) -> RunningEmbedding:
        """Tokenize the texts a few at a time, then queue them all."""
        model = self._model
        running = RunningEmbedding(self._cancel, caller)
        model.check_embedding(request)
        inputs: list[Any] = []
        for start in range(0, len(request.inputs), INPUTS_AT_ONCE):  # so that other prompts come in between
            inputs += await self._off_loop(model.tokenize_inputs, request, start, start + INPUTS_AT_ONCE)
            check_input_tokens(sum(map(len, inputs)))
        embedding = await self._off_loop(model.make_embedding, request, inputs, running)
        self._queue(partial(model.scheduler.embed, embedding), [running])
        return running

    async def tokenize(self, content: tuple[str | int, ...], *, special: bool) -> list[tuple[int, bytes]]:
        """Give token ids with their bytes."""
        self._model.check_length(content, "content")
        tokens: list[tuple[int, bytes]] = []
        for start in range(0, len(content), _PARTS_AT_ONCE):  # so that other prompts come in between
            parts = content[start : start + _PARTS_AT_ONCE]
            tokens += await self._off_loop(self._model.tokenize, parts, special=special and start == 0)
        return tokens

    async def detokenize(self, tokens: list[int]) -> str:
        """Give the text of token ids."""
        return await self._off_loop(self._model.detokenize, tokens)

    async def unload(self, *, now: bool = False) -> None:
        """Take the model out of memory, between two steps."""
        await self._commands.call(self._unload, now)

    async def _off_loop(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._prompts, partial(work, *args, **kwargs))

    def _queue(self, submit: Callable[[], None], requests: Sequence[RunningRequest]) -> None:
        self._commands.put(partial(self._submit_or_fail, submit, requests))

    def _cancel(self, request: RunningRequest) -> None:
        self._commands.put(partial(self._model.scheduler.cancel, request))

    def _submit_or_fail(self, submit: Callable[[], None], requests: Sequence[RunningRequest]) -> None:
        """Have the scheduler take requests; what hinders that is their error. On the engine thread."""
        error: AppError = ModelUnloaded("The model was unloaded")
        if not self._model.scheduler.retired:
            try:
                submit()
            except Exception:
                log.exception("request could not be queued")
                error = EngineFailed("The engine failed before it began this answer")
            else:
                return
        for request in requests:
            self._outbox.put(request, [error])


def check_input_tokens(tokens: int, param: str = "input") -> None:
    """Raise UnprocessableBody for more tokens than are computed for one request."""
    if tokens > _MAX_INPUT_TOKENS:
        raise UnprocessableBody(
            f"{param}: more than {_MAX_INPUT_TOKENS} tokens in one request; send fewer at a time", param=param
        )
