"""Everybody who is measured: started when first needed, suspended until it is their turn, ended whatever happens."""

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from benchmarks import model, names, profile
from benchmarks.errors import BenchmarkError
from benchmarks.in_process import InProcess
from benchmarks.model import Model
from benchmarks.prompts import fresh
from benchmarks.server import OURS, PEER, Recipe, Server, llama_server, peer_with_blas
from benchmarks.target import Target


class Lineup:
    """The targets of a run, by model and name."""

    def __init__(self, cache: Path, profiles: Path | None = None) -> None:
        """`cache` keeps models; with `profiles`, and without py-spy, ours profiles itself."""
        self._cache = cache
        self._ours = profile.recipe(profiles) if profiles and not profile.spy() else OURS
        self._targets: dict[tuple[str, str], Server | InProcess] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._home = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            for target in list(self._targets.values()):
                await target.stop()
        finally:
            await self._stack.aclose()

    async def target(self, of: str, name: str) -> Target:
        """Give a target for a model, started and warm. Raises BenchmarkError where it does not start."""
        if (of, name) not in self._targets:
            target = self._started(model.built(of, self._cache), name)
            self._targets[of, name] = target
            try:
                await _warm_up(target)
            except BaseException:
                await self.drop(target)
                raise
        return self._targets[of, name]

    async def drop(self, target: Target) -> None:
        """End a target; the next time it is wanted it begins anew."""
        self._targets.pop((target.model.name, target.name), None)
        await target.stop()

    def process(self, target: Target) -> Any:
        """The process of a target."""
        return self._targets[target.model.name, target.name].process

    def _started(self, of: Model, name: str) -> Server | InProcess:
        home = Path(tempfile.mkdtemp(dir=self._home))
        return InProcess(of, home) if name == names.IN_PROCESS else Server(self._recipe(name), of, home)

    def _recipe(self, name: str) -> Recipe:
        makers = {names.PEER_WITH_BLAS: peer_with_blas, names.LLAMA_SERVER: llama_server}
        recipe = {names.OURS: self._ours, names.PEER: PEER}.get(name) or makers[name]()
        if recipe is None:
            raise BenchmarkError("not on this machine")
        return recipe


async def _warm_up(target: Server | InProcess) -> None:
    with target.awake():
        if isinstance(target, Server):
            await target.ready()
        await target.chat(fresh("warm up"), 8)
        await target.chats([fresh(f"warm up {number}") for number in range(4)], 8, 4)
