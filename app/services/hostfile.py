"""The machines that serve one model together: a hostfile, as `mlx.launch` and `mlx.distributed_config` have it."""

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Sharding = Literal["auto", "tensor", "pipeline"]

_BACK_ENDS = ("ring", "jaccl", "jaccl-ring", "nccl")
_MOST_HOSTS = 64
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Host:
    """A machine: how ssh reaches it, its addresses, and its RDMA devices by rank, if it has any.

    All machines reach the first by its first address; only the ring needs addresses of the others.
    """

    ssh: str
    ips: tuple[str, ...]
    rdma: tuple[Any, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether it is this machine, so that no ssh is needed."""
        return self.ssh in _LOCAL


@dataclass(frozen=True, slots=True)
class Hostfile:
    """The machines, this one first; MLX's back end between them; and what their environment is to have."""

    hosts: tuple[Host, ...]
    back_end: str = "ring"
    variables: tuple[tuple[str, str], ...] = ()

    @property
    def public_addresses(self) -> list[str]:
        """Addresses that anybody on the internet may reach."""
        return [ip for host in self.hosts for ip in host.ips if ipaddress.ip_address(ip).is_global]

    def earlier_on(self, rank: int) -> int:
        """Count the processes before one in rank that are on the same machine."""
        machines = ["" if host.is_local or not at else host.ssh for at, host in enumerate(self.hosts[: rank + 1])]
        return machines[:rank].count(machines[rank])


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """One model over several machines."""

    hostfile: Hostfile
    sharding: Sharding = "auto"
    split: tuple[int, ...] = ()  # layers of each machine, of a pipeline; () is about as many each
    silence: float = 10.0  # seconds after which a machine that says nothing is gone


def read(path: Path) -> Hostfile:
    """Read a hostfile. Raises ValueError, which says what is wrong with it."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {(error.strerror or 'why?').lower()}") from None
    except ValueError:
        raise ValueError(f"{path} is not JSON") from None
    content = {"hosts": content} if isinstance(content, list) else content
    if not isinstance(content, dict) or not isinstance(content.get("hosts"), list):
        raise ValueError(f"{path} has no list of hosts")
    back_end = content.get("backend") or "ring"
    if back_end == "mpi":
        raise ValueError(f'{path}: MPI starts its processes itself; the "backend" ring works with the same hosts')
    if back_end not in _BACK_ENDS:
        raise ValueError(f"{path}: the backend {str(back_end)[:50]!r} is none of {', '.join(_BACK_ENDS)}")
    hosts = tuple(_host(number, one, back_end) for number, one in enumerate(content["hosts"], 1))
    if not 2 <= len(hosts) <= _MOST_HOSTS:
        raise ValueError(f"{path} has {len(hosts)} hosts; it takes 2 to {_MOST_HOSTS}, this machine first")
    if back_end.startswith("jaccl"):
        _check_devices(path, hosts, back_end)
    return Hostfile(hosts, back_end, tuple(_variable(path, one) for one in content.get("envs") or ()))


def _check_devices(path: Path, hosts: Sequence[Host], back_end: str) -> None:
    """See that each host names its RDMA device to each other one, or to its two neighbours in a ring."""
    count = len(hosts)
    if any(len(host.rdma) != count for host in hosts):
        raise ValueError(f"{path}: {back_end} needs the RDMA devices of each host: mlx.distributed_config finds them")
    for at, host in enumerate(hosts):
        if host.rdma[at] is not None:
            raise ValueError(f"{path}: {host.ssh} names an RDMA device to itself; there it has to be null")
        others = {(at - 1) % count, (at + 1) % count} if back_end == "jaccl-ring" else {*range(count)} - {at}
        for other in sorted(others):
            if host.rdma[other] is None:
                raise ValueError(f"{path}: {host.ssh} names no RDMA device to {hosts[other].ssh}")


def _host(number: int, content: Any, back_end: str) -> Host:
    if not isinstance(content, dict) or not isinstance(content.get("ssh"), str) or not content["ssh"].strip():
        raise ValueError(f"host {number} has no name for ssh")
    ssh = content["ssh"].strip()
    if ssh.startswith("-") or any(character.isspace() for character in ssh):
        raise ValueError(f"host {number}: {ssh[:50]!r} is no name for ssh")
    ips = content.get("ips") or []
    if not isinstance(ips, list) or (not ips and (back_end == "ring" or number == 1)):
        raise ValueError(f"host {number} ({ssh}) has no ips")
    for ip in ips:
        try:
            ipaddress.IPv4Address(ip)
        except ValueError:
            raise ValueError(f"host {number} ({ssh}): {str(ip)[:50]!r} is no IPv4 address") from None
    rdma = content.get("rdma")
    return Host(ssh, tuple(ips), tuple(rdma) if isinstance(rdma, list) else ())


def _variable(path: Path, text: Any) -> tuple[str, str]:
    name, equals, value = str(text).partition("=")
    if not equals or not name.replace("_", "").isalnum() or not name.isascii():
        raise ValueError(f"{path}: {str(text)[:50]!r} is no variable: NAME=VALUE")
    return name, value
