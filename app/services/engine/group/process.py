"""The process of a worker: it connects to the leader, loads its share of a model, and repeats until it is let go."""

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import NoReturn

import structlog

from app.services.engine.group import machine, sharding
from app.services.engine.group.channel import Channel, ChannelLost
from app.services.engine.group.joining import SECONDS as JOIN_SECONDS
from app.services.engine.group.joining import join
from app.services.engine.group.messages import Beat, Failure, Form, Joining, Message, Setup, Stop, Work
from app.services.engine.group.worker import Worker
from app.services.engine.model import loading
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.memory_budget import MemoryBudget
from app.services.errors import LoadFailed

log = structlog.get_logger()

_BEAT_SECONDS = 1.0
_LEFT, _FAILED, _ALONE = 0, 1, 3  # exit codes: let go, an error here, the leader is gone


def run(setup: Setup) -> NoReturn:
    """Work for a leader until it lets go or is gone. Ends the process then, since a collective may hang for ever."""
    threading.Thread(target=_watch_input, name="input", daemon=True).start()
    channel: Channel | None = None
    try:
        channel = _connect(setup)
        _work(setup, channel)
    except ChannelLost as error:
        log.warning("leader lost", rank=setup.rank, reason=str(error))
        _leave(_ALONE)
    except BaseException as error:
        with suppress(Exception):
            log.exception("worker failed", rank=setup.rank)
        if channel is not None:
            with suppress(ChannelLost):
                channel.send(Failure(f"{type(error).__name__}: {str(error)[:200]}"))
        _leave(_FAILED)
    finally:  # even where the log cannot be written any more
        _leave(_FAILED)


def _connect(setup: Setup) -> Channel:
    connection = socket.create_connection((setup.host, setup.port), timeout=JOIN_SECONDS)
    return Channel(connection, bytes.fromhex(setup.key), is_leader=False, silence=JOIN_SECONDS)


def _work(setup: Setup, channel: Channel) -> None:
    loading.prepare()
    folder, budget = Path(setup.model), MemoryBudget()
    channel.send(machine.describe(setup.rank, folder, setup.ring[setup.rank], setup.back_end))
    threading.Thread(target=_beat, args=(channel, budget), name="beat", daemon=True).start()
    messages: SimpleQueue[Message] = SimpleQueue()
    threading.Thread(target=_listen, args=(channel, messages), name="leader", daemon=True).start()
    form = messages.get()
    if not isinstance(form, Form):
        raise ChannelLost("it does not say how to begin")
    if problem := machine.problem_with(folder, setup.ring[setup.rank], setup.back_end):  # that has come meanwhile
        raise LoadFailed(problem)
    begin = partial(channel.send, Joining())
    group, _ = join(setup.rank, setup.ring, form.nonce, setup.back_end, setup.variables, begin)
    network = loading.load_share(folder, lambda one: sharding.share(one, group, form.kind, form.split), form.widened)
    channel.send(sharding.ready(network, budget.free()))
    channel.silence = setup.silence
    worker = Worker(LanguageModel(network))
    while True:
        match messages.get():
            case Work(operations):
                for operation in operations:
                    worker.repeat(operation)
            case message:
                raise ChannelLost(f"it says {type(message).__name__} unasked")


def _listen(channel: Channel, messages: "SimpleQueue[Message]") -> None:
    """Take what the leader says; nothing of this process waits once it is gone."""
    try:
        while True:
            match channel.receive():
                case Beat():
                    pass
                case Stop():
                    _leave(_LEFT)
                case message:
                    messages.put(message)
    except ChannelLost as error:
        with suppress(Exception):
            log.warning("leader lost", reason=str(error))
        _leave(_ALONE)


def _beat(channel: Channel, budget: MemoryBudget) -> None:
    """Tell the leader each second that this machine is there."""
    clock = threading.Event()
    with suppress(ChannelLost):  # whoever listens leaves then
        while not clock.wait(_BEAT_SECONDS):
            channel.send(Beat(budget.free()))


def _watch_input() -> None:
    """Leave once standard input ends: with the leader's process, or the ssh that runs this one."""
    with suppress(Exception):
        while sys.stdin.buffer.read(2**10):
            pass
    _leave(_ALONE)


def _leave(code: int) -> NoReturn:
    os._exit(code)


def ignore_interrupts() -> None:
    """Leave Ctrl-C to the leader, which lets workers go."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
