"""What the machines of a group say to each other."""

from typing import Any, Literal

import msgspec

Kind = Literal["tensor", "pipeline"]


class Setup(msgspec.Struct, kw_only=True):
    """What a worker is started with: a line of JSON on its standard input, since others see command lines."""

    key: str  # hexadecimal; both sides of the channel have to know it
    host: str  # of the leader's channel
    port: int
    rank: int
    model: str  # folder
    silence: float  # seconds after which a machine that says nothing is gone
    back_end: str  # of MLX's collectives
    variables: dict[str, str]  # of the environment, for MLX and CUDA
    ring: list[list[str]]  # addresses with ports, by rank
    blas: str


class Hello(msgspec.Struct, tag=True):
    """A worker says what it is, before anything is computed."""

    rank: int
    versions: dict[str, str]
    files: str  # checksum of the model's
    device: str
    free_bytes: int
    problem: str | None = None  # why it cannot take part


class Form(msgspec.Struct, tag=True):
    """The leader has all machines connect, and load their shares."""

    kind: Kind
    split: list[int] | None  # layers by rank, of a pipeline
    widened: bool  # whether weights become float32
    nonce: int  # what every machine finds at the others, if they are connected to those of this group


class Joining(msgspec.Struct, tag=True):
    """A worker connects with the others now; until then it can say why it does not."""


class Ready(msgspec.Struct, tag=True):
    """A worker has loaded its share."""

    free_bytes: int
    token_bytes: int  # of its KV cache
    trimmable: bool  # whether all of its layers are


class Operation(msgspec.Struct, array_like=True):
    """Something done to layers, which are named by numbers, or computed with them."""

    name: str
    layers: list[int]
    values: list[Any]  # numbers and lists of them
    result: int = 0  # the number of the layers that it gives


class Work(msgspec.Struct, tag=True):
    """The leader has workers do what it does."""

    operations: list[Operation]


class Beat(msgspec.Struct, tag=True):
    """A machine is still there."""

    free_bytes: int = 0


class Failure(msgspec.Struct, tag=True):
    """A worker cannot go on."""

    reason: str


class Stop(msgspec.Struct, tag=True):
    """The leader lets a worker go."""


Message = Hello | Form | Joining | Ready | Work | Beat | Failure | Stop
