"""Connects the machines of a group by MLX's collectives, and sees that they are those of this group."""

import faulthandler
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

import mlx.core as mx

from app.services.engine.group import ring_alarm
from app.services.errors import LoadFailed

_EXCHANGES, _NUMBERS = 20, 4096  # of how many numbers each
SECONDS = 60.0  # for all machines to connect; whoever waits longer ends its process, since nothing else ends that
_NEIGHBOUR_SECONDS = 20.0  # for a neighbour to connect; MLX tries for half a minute to connect to one


class Joined(NamedTuple):
    """MLX's group, and what an exchange of all machines takes, in seconds."""

    group: Any
    exchange: float


_joined: list[Any] = []  # the group of this process, once it has one


def is_joined() -> bool:
    """Whether this process has connected with others, which it can do once."""
    return bool(_joined)


def join(
    rank: int,
    ring: Sequence[Sequence[str]],
    nonce: int,
    back_end: str,
    variables: Mapping[str, str],
    begin: Callable[[], None] = lambda: None,
) -> Joined:
    """Connect with the others, which do so at the same time. Raises LoadFailed. `begin` is called just before.

    A process can do this once. MLX holds the interpreter meanwhile, for a second or so. Its ring takes whoever connects
    first for its neighbour, and numbers are wrong then, so each machine shows the others a number that it was given.
    """
    with (
        TemporaryDirectory() as folder,
        _environment(_variables(rank, ring, back_end, variables, Path(folder))),
        Path(os.devnull).open("w") as nowhere,
        _alarm(() if rank or back_end != "ring" else ring[0]),  # whoever waits for the first machine waits for it alone
    ):
        begin()
        faulthandler.dump_traceback_later(SECONDS, exit=True, file=nowhere)
        try:
            group = mx.distributed.init(strict=True, backend=back_end.removesuffix("-ring"))
            seen = mx.distributed.all_gather(mx.array([nonce + rank], mx.int32), group=group)
            mx.eval(seen)  # which lets other threads go on
            numbers, seconds = cast("list[int]", seen.tolist()), _measure(group)
        except RuntimeError as error:
            raise LoadFailed(f"the machines cannot connect: {str(error)[:200]}") from error
        finally:
            faulthandler.cancel_dump_traceback_later()
    if numbers != [nonce + each for each in range(len(ring))]:
        raise LoadFailed("the machines are connected to others than those of this group")
    _joined.append(group)
    return Joined(group, seconds)


def _measure(group: Any) -> float:
    """Exchange as much as a token takes in a layer, some times. Gives the least seconds that it took."""
    seconds = []
    for _ in range(_EXCHANGES):
        began = time.perf_counter()
        mx.eval(mx.distributed.all_sum(mx.zeros(_NUMBERS), group=group))
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _variables(
    rank: int, ring: Sequence[Sequence[str]], back_end: str, variables: Mapping[str, str], folder: Path
) -> dict[str, str]:
    """Give what MLX reads of the environment; `variables` have what is the same on all machines."""
    own = {"MLX_RANK": str(rank)}
    file = folder / "hosts.json"
    if back_end == "ring":
        file.write_text(json.dumps(ring))
        own["MLX_HOSTFILE"] = str(file)
    elif devices := variables.get("MLX_IBV_DEVICES"):
        file.write_text(devices)
        own["MLX_IBV_DEVICES"] = str(file)
    return {**variables, **own}


@contextmanager
def _alarm(addresses: Sequence[str]) -> Iterator[None]:
    """Have MLX's wait at these addresses for a neighbour end some time."""
    if not addresses:
        yield
        return
    command = [sys.executable, "-IS", ring_alarm.__file__, str(_NEIGHBOUR_SECONDS), *addresses]
    nothing = subprocess.DEVNULL
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=nothing, stderr=nothing, start_new_session=True
    ) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have variables, but those of MLX's connections only for now: a process in this one's place has others."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in ("MLX_RANK", "MLX_HOSTFILE", "MLX_IBV_DEVICES"):
            if (value := before.get(name)) is not None:
                os.environ[name] = value
            else:
                os.environ.pop(name, None)
