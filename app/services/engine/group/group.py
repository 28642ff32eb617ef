"""The machines of one model, as the one sees them that decides: how they come together, and when one is gone."""

import secrets
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from app.services.engine.cache.footprint import measure
from app.services.engine.cache.layers import new_layers
from app.services.engine.group import machine, sharding
from app.services.engine.group.channel import Channel, ChannelLost
from app.services.engine.group.forming import addresses, compare, connect
from app.services.engine.group.joining import is_joined, join
from app.services.engine.group.leader import Leader, LedModel
from app.services.engine.group.messages import (
    Beat,
    Failure,
    Form,
    Joining,
    Kind,
    Operation,
    Ready,
    Stop,
    Work,
)
from app.services.engine.group.remote_worker import RemoteWorker
from app.services.engine.model import loading
from app.services.engine.model.memory_budget import MemoryBudget
from app.services.errors import AppError, GroupLost, GroupNotFormed, LoadFailed
from app.services.facts import GroupFacts, MachineFacts
from app.services.hostfile import GroupConfig

log = structlog.get_logger()

_BEAT_SECONDS = 1.0
_SLOW = 0.02  # seconds of exchanges a token
_NOTICE_SECONDS = 0.5  # in which a machine that is gone is noticed as such, where a step has failed because of it


class Group:
    """Its methods are for the engine thread, but for `facts` and what other threads of its own call."""

    def __init__(
        self,
        config: GroupConfig,
        on_lost: Callable[[str], None],
        on_beat: Callable[[Sequence[int]], None] = lambda free: None,
        blas: str = "auto",
    ) -> None:
        self.leader = Leader(self._tell)
        self.lost: str | None = None  # why it is over
        self._config = config
        self._blas = blas  # that workers compute with, as `blas.preload` takes it
        self._on_beat = on_beat  # called with the free bytes of the others, on any thread
        self._on_lost = on_lost  # called once, on any thread, if this process has to be replaced
        hosts = config.hostfile.hosts
        self._workers = [RemoteWorker(rank, len(hosts), host) for rank, host in enumerate(hosts) if rank]
        self._kind: Kind | None = None
        self._is_joined = self._is_serving = False
        self._token_bytes = 0  # of the KV cache here
        self._lock = threading.Lock()
        self._over = threading.Event()

    # How the machines come together.

    def split(self, folder: Path, network: Any, widened: bool) -> Generator[float, None, int]:
        """Bring the machines together, and leave of a model, whose weights are not read, what this one computes.

        Gives over how many machines each array is shared out.

        Raises GroupNotFormed, after which it may be tried again, or LoadFailed.
        """
        if is_joined():
            raise LoadFailed("several machines serve the model that they were started with: start the server anew")
        config = self._config
        copy = partial(loading.unread, folder, widened)
        kind = sharding.choose(network, copy, len(self._workers) + 1, config.sharding, config.split)
        try:
            ring, variables = at = addresses(config.hostfile)
            yield from connect(self._workers, config, at, folder, self._blas, self._take)
            compare(self._workers, machine.describe(0, folder, ring[0], config.hostfile.back_end))
            threading.Thread(target=self._beat, name="beat", daemon=True).start()
            nonce = secrets.randbelow(2**30)
            for worker in self._workers:
                worker.send(Form(kind, list(config.split) or None, widened, nonce))
            while not all(worker.is_joining for worker in self._workers):
                if self._over.wait(0.05):
                    raise GroupNotFormed(self.lost)
                yield 0.1
        except (OSError, AppError) as error:
            self._end_workers(at_once=True)
            raise GroupNotFormed(str(error)) from error
        self._is_joined, self._kind = True, kind
        log.info("machines connect", machines=len(ring), sharding=kind, back_end=config.hostfile.back_end)
        try:
            group, exchange = join(0, ring, nonce, config.hostfile.back_end, variables)
        except LoadFailed as error:  # a port was taken meanwhile, say
            raise self._lose(error.message) from error
        seconds = exchange * sharding.exchanges(network, kind)
        log.info("machines connected", exchange_ms=round(exchange * 1000, 2), token_ms=round(seconds * 1000, 1))
        if kind == "tensor" and seconds > _SLOW and sharding.why_not_pipeline(network, len(ring), ()) is None:
            log.warning("the link is slow for tensors", advice="--sharding pipeline exchanges less")
        return sharding.share(network, group, kind, config.split)

    def wait_ready(self, network: Any) -> Generator[float, None, None]:
        """Wait until all machines have loaded their shares. Raises LoadFailed."""
        while not all(worker.ready for worker in self._workers):
            if self._over.wait(0.05):
                raise LoadFailed(str(self.lost))
            yield 0.9
        own = new_layers(network).is_trimmable
        for worker in self._workers:
            if worker.ready is not None and worker.ready.trimmable != own:
                raise LoadFailed("the machines have different kinds of layers: give another --layer-split")
        self._token_bytes = measure(network).token_bytes
        self._is_serving = True

    def lead(self, network: Any) -> LedModel:
        """Give the model that all machines compute, once they are ready."""
        return LedModel(network, self.leader)

    def budget(self, limit: int | None) -> "GroupBudget":
        """Give the memory of all machines, as far as this one may use `limit` bytes."""
        return GroupBudget(limit, self)

    # While it serves.

    def facts(self) -> GroupFacts:
        """Say how the machines are. On any thread."""
        hosts = self._config.hostfile.hosts
        own = MachineFacts(hosts[0].ssh, "ready" if self._is_serving else "loading", machine.device_name())
        others = [worker.facts() for worker in self._workers]
        return GroupFacts(self._kind, self._config.hostfile.back_end, (own, *others), self.lost)

    def least_free(self) -> int | None:
        """Give the bytes free at the machine that has least for KV caches, as bytes of this one's; None for others."""
        scaled = [
            worker.free_bytes * self._token_bytes // max(1, worker.ready.token_bytes)
            for worker in self._workers
            if worker.ready is not None and worker.ready.token_bytes
        ]
        return min(scaled, default=None)

    def _lose(self, reason: str, *, final: bool = False) -> GroupLost:
        """Note that it is over, once. Gives the error for whoever waits. On any thread.

        What is `final` would happen again, and machines that were never connected can be brought together anew in this
        process; else another one has to take its place.
        """
        with self._lock:
            is_first = not self._over.is_set()
            if is_first:
                self.lost = reason
                self._over.set()
        if is_first:
            if self._is_joined:
                log.error("group lost", reason=reason)
            if self._is_joined and not final:
                self._on_lost(reason)
            self._end_workers(at_once=True)
        return GroupLost(self.lost)

    def close(self) -> None:
        """Let the workers go."""
        with self._lock:
            was_over = self._over.is_set()
            self._over.set()
        if not was_over:
            for worker in self._workers:
                if worker.channel is not None:
                    with suppress(ChannelLost):
                        worker.send(Stop())
            self._end_workers()

    def _tell(self, operations: list[Operation]) -> None:
        if self._over.is_set():
            raise GroupLost(self.lost)
        for worker in self._workers:
            try:
                worker.send(Work(operations))
            except ChannelLost as error:
                raise self._lose(f"{worker.name} is gone: {error}") from error

    def fail(self, error: Exception) -> AppError:
        """Note that a step failed here, mostly because another machine is gone. Gives the error for whoever waits."""
        self._over.wait(_NOTICE_SECONDS)
        return self._lose(f"A step failed on this machine: {type(error).__name__}: {str(error)[:200]}")

    def _take(self, worker: RemoteWorker, channel: Channel) -> None:
        """Listen to a worker that has connected."""
        threading.Thread(target=self._listen, args=(worker, channel), name="group", daemon=True).start()

    def _listen(self, worker: RemoteWorker, channel: Channel) -> None:
        """Take what a worker says, on a thread of its own."""
        try:
            while not self._over.is_set():
                match channel.receive():
                    case Beat(free_bytes):
                        worker.free_bytes = free_bytes
                        self._on_beat([other.free_bytes for other in self._workers])
                    case Joining():
                        worker.is_joining = True
                    case Ready() as ready:
                        channel.silence = self._config.silence
                        worker.free_bytes, worker.ready = ready.free_bytes, ready
                    case Failure(reason):
                        self._lose(f"{worker.name} failed: {reason}", final=is_joined() and not self._is_serving)
                    case message:
                        raise ChannelLost(f"it says {type(message).__name__} unasked")
        except ChannelLost as error:
            self._lose(f"{worker.name} is gone: {error}")

    def _beat(self) -> None:
        """Tell workers each second that this machine is there."""
        while not self._over.wait(_BEAT_SECONDS):
            for worker in self._workers:
                try:
                    worker.send(Beat())
                except ChannelLost as error:
                    self._lose(f"{worker.name} is gone: {error}")

    def _end_workers(self, *, at_once: bool = False) -> None:
        self._over.set()
        for worker in self._workers:
            if worker.channel is not None:
                worker.channel.close()
        for worker in self._workers:
            if worker.process is not None:
                worker.process.end(at_once=at_once)


class GroupBudget(MemoryBudget):
    """The memory of the machine of a group that has least."""

    def __init__(self, limit: int | None, group: Group) -> None:
        super().__init__(limit)
        self._group = group

    def free(self) -> int:
        """Give the bytes that can be allocated now."""
        least = self._group.least_free()
        return super().free() if least is None else min(super().free(), least)
