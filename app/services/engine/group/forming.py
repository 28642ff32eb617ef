"""How the machines of a group come together, up to where MLX connects them."""

import json
import secrets
import socket
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import structlog

from app.services.engine.group import machine
from app.services.engine.group.channel import Channel, ChannelLost
from app.services.engine.group.joining import SECONDS as JOIN_SECONDS
from app.services.engine.group.messages import Hello, Setup
from app.services.engine.group.processes import WorkerProcess
from app.services.engine.group.remote_worker import RemoteWorker
from app.services.errors import GroupNotFormed
from app.services.hostfile import GroupConfig, Hostfile

log = structlog.get_logger()

_FIRST_PORT = 32323  # of the ring on other machines, as mlx.launch has it
_START_SECONDS = 90.0  # that workers have to start, and to import MLX
_KEY_SECONDS = 5.0  # that whoever connects has to show that it knows the key


class Addresses(NamedTuple):
    """Where each machine listens for its neighbours, and the variables of MLX's that all have."""

    ring: list[list[str]]
    variables: dict[str, str]


def addresses(hostfile: Hostfile) -> Addresses:
    """Choose a port for each address: a free one of this machine, else one after another."""
    port = _FIRST_PORT
    ring: list[list[str]] = []
    for host in hostfile.hosts:
        ports = [machine.free_port(ip) if host.is_local else port + at for at, ip in enumerate(host.ips)]
        ring.append([f"{ip}:{number}" for ip, number in zip(host.ips, ports, strict=True)])
        port += len(host.ips)
    variables, first = dict(hostfile.variables), ring[0][0]
    if hostfile.back_end == "nccl":
        ip, _, number = first.rpartition(":")
        variables |= {"NCCL_HOST_IP": ip, "NCCL_PORT": number, "MLX_WORLD_SIZE": str(len(ring))}
    elif hostfile.back_end != "ring":
        variables["MLX_IBV_DEVICES"] = json.dumps([host.rdma for host in hostfile.hosts])
        variables["MLX_JACCL_COORDINATOR"] = first
        if hostfile.back_end == "jaccl-ring":
            variables["MLX_JACCL_RING"] = "1"
    return Addresses(ring, variables)


def variables_of(rank: int, hostfile: Hostfile, at: Addresses) -> dict[str, str]:
    """Give the variables of a worker: with NCCL, each process of a machine computes on another of its GPUs."""
    device = {"CUDA_VISIBLE_DEVICES": str(hostfile.earlier_on(rank))} if hostfile.back_end == "nccl" else {}
    return device | at.variables


def connect(
    workers: Sequence[RemoteWorker],
    config: GroupConfig,
    at: Addresses,
    folder: Path,
    blas: str,
    on_connect: Callable[[RemoteWorker, Channel], None],
) -> Generator[float, None, None]:
    """Start the workers, and wait for what each says of itself. Raises GroupNotFormed, OSError."""
    key, hostfile = secrets.token_bytes(32), config.hostfile
    with _listener(hostfile.hosts[0].ips[0]) as listener:
        listener.settimeout(0.05)
        host, port = listener.getsockname()
        for worker in workers:
            setup = Setup(
                key=key.hex(),
                host=host,
                port=port,
                rank=worker.rank,
                model=str(folder),
                silence=config.silence,
                back_end=hostfile.back_end,
                variables=variables_of(worker.rank, hostfile, at),
                ring=at.ring,
                blas=blas,
            )
            worker.process = WorkerProcess(worker.host, setup)
        deadline = time.monotonic() + _START_SECONDS
        while missing := [worker for worker in workers if worker.hello is None]:
            for worker in missing:
                _check_start(worker, deadline)
            with suppress(TimeoutError):
                _accept(listener.accept()[0], key, missing, on_connect)
            yield 0.1


def _listener(ip: str) -> socket.socket:
    try:
        return socket.create_server((ip, 0))
    except OSError as error:
        reason = (error.strerror or "why?").lower()
        words = f"This machine is the first host of --hostfile, and cannot listen on {ip}: {reason}"
        raise GroupNotFormed(words) from None


def compare(workers: Sequence[RemoteWorker], own: Hello) -> None:
    """Raise GroupNotFormed where machines differ in what has to be the same."""
    if own.problem is not None:
        raise GroupNotFormed(f"This machine: {own.problem}")
    for worker in workers:
        hello = worker.hello
        assert hello is not None
        if hello.problem is not None:
            raise GroupNotFormed(f"{worker.name}: {hello.problem}")
        for package, number in own.versions.items():
            if (other := hello.versions.get(package)) != number:
                raise GroupNotFormed(f"{worker.name} has {package} {other}, this machine {number}")
        if hello.files != own.files:
            raise GroupNotFormed(f"{worker.name} has another model in the same folder: mlx_lm.share copies this one")


def _check_start(worker: RemoteWorker, deadline: float) -> None:
    code = worker.process.exit_code if worker.process is not None else None
    if code is not None:
        is_ssh = code == 255 and not worker.host.is_local
        raise GroupNotFormed(f"{worker.name} did not start: {'ssh cannot reach it' if is_ssh else f'exit code {code}'}")
    if time.monotonic() > deadline:
        raise GroupNotFormed(f"{worker.name} did not connect within {_START_SECONDS:.0f} s")


def _accept(
    connection: socket.socket,
    key: bytes,
    missing: Sequence[RemoteWorker],
    on_connect: Callable[[RemoteWorker, Channel], None],
) -> None:
    """Take the connection of a worker; one of anybody else is closed."""
    channel: Channel | None = None
    try:
        channel = Channel(connection, key, is_leader=True, silence=_KEY_SECONDS)
        hello = channel.receive()
        worker = next((one for one in missing if isinstance(hello, Hello) and one.rank == hello.rank), None)
        if worker is None or not isinstance(hello, Hello):
            raise ChannelLost("it does not say which machine it is")
    except ChannelLost as error:
        log.warning("a connection to the group was refused", reason=str(error))
        if channel is not None:
            channel.close()
        return
    channel.silence = JOIN_SECONDS  # nobody says anything while MLX connects the machines
    worker.channel, worker.free_bytes, worker.hello = channel, hello.free_bytes, hello
    on_connect(worker, channel)
