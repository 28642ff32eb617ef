"""How much memory a model would take here, if it was loaded."""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from app.services import catalog
from app.services.errors import EstimateFailed, LoadFailed
from app.services.estimates import model_size
from app.services.estimates.model_size import ModelSize
from app.services.inference import Engine

CONTEXT = 32_768  # tokens, unless a setting says another number: that of Tiles' agent
_OVERHEAD = 2**28  # bytes for what a step computes
_FLOAT32 = 4  # bytes; on the CPU, weights become that
_MAX_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes of memory."""

    total: int
    weights: int
    experts: int  # of the weights: those of experts, of which each token uses a few
    cache: int  # of one conversation that fills the context


class Estimator:
    """Keeps what it has read of files on hubs. On the event loop."""

    def __init__(self, engine: Engine, context_length: int | None) -> None:
        self._engine = engine
        self._context = context_length or CONTEXT
        self._remote: dict[tuple[str, int | None], ModelSize] = {}  # the last that were asked for
        self._one_at_a_time = asyncio.Semaphore(2)

    async def of_url(self, url: str, size: int | None) -> Estimate:
        """Estimate a GGUF file on a hub; `size` in bytes tells its versions apart. Raises EstimateFailed."""
        from app.services.estimates import remote_header  # with an HTTP client, which nothing else needs

        if (model := self._remote.pop((url, size), None)) is None:
            async with self._one_at_a_time:
                with tempfile.TemporaryDirectory(prefix="tiles-header-") as folder:
                    model = await remote_header.read(url, Path(folder), model_size.of_gguf)
        self._remote[url, size] = model
        if len(self._remote) > _MAX_ENTRIES:
            del self._remote[next(iter(self._remote))]
        return await self._estimate(model)

    async def of_model(self, name: str) -> Estimate:
        """Estimate a model of this machine, by its id or path. Raises EstimateFailed."""
        try:
            return await self._estimate(await asyncio.to_thread(_read, name))
        except LoadFailed as error:
            raise EstimateFailed(error.message, param="model") from None

    async def _estimate(self, model: ModelSize) -> Estimate:
        try:
            cache = await self._engine.cache_bytes(model.config, min(self._context, model.context))
        except LoadFailed as error:
            raise EstimateFailed(error.message) from None
        return estimate(model, cache, self._engine.back_end)


def estimate(model: ModelSize, cache_bytes: int, back_end: str) -> Estimate:
    """Add up what a model takes with a conversation whose cache takes so many bytes."""
    weights = model.parameters * _FLOAT32 if back_end == "cpu" else model.weight_bytes
    return Estimate(weights + cache_bytes + _OVERHEAD, weights, round(weights * model.expert_share), cache_bytes)


def _read(name: str) -> ModelSize:
    return model_size.of_path(catalog.resolve(name).path)
