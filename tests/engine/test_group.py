"""A model over several machines: workers have what the leader has, whatever it does, and only those of the group."""

import argparse
import random
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx._distributed_utils import common, launch

from app.services.engine.cache.layers import OPERATIONS, Layers
from app.services.engine.group import sharding
from app.services.engine.group.channel import Channel, ChannelLost
from app.services.engine.group.forming import addresses, connect, variables_of
from app.services.engine.group.group import Group
from app.services.engine.group.leader import Leader, LedModel
from app.services.engine.group.messages import Beat, Failure, Message, Operation, Stop, Work
from app.services.engine.group.worker import Worker
from app.services.engine.model import loading
from app.services.engine.model.batching import check_batching
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.sampling.params import SamplingParams
from app.services.engine.scheduler.row import Row
from app.services.engine.speculative.prompt_lookup import PromptLookupProposer
from app.services.errors import GroupLost, GroupNotFormed, LoadFailed
from app.services.hostfile import GroupConfig, Host, Hostfile
from tests import tiny_model
from tests.conftest import wait_for
from tests.engine.sampling_params import PARAMS
from tests.engine.scheduler_parts import Counting, Letters, Reader
from tests.engine.workshop import EVERY, SlowMachine, Workshop, random_model

TEXTS = [[random.Random(seed).randrange(20, 700) for _ in range(400)] for seed in range(3)]


class Pair:
    """A leader, and a worker in the same process that has the whole model too: what both hold can be compared."""

    def __init__(self, network: Any) -> None:
        self.worker = Worker(LanguageModel(network))
        self.leader = Leader(self.send)
        self.model = LedModel(network, self.leader)
        self.names: set[str] = set()

    def send(self, operations: list[Operation]) -> None:
        """Do all of it but a call of the model, which the leader has yet to do; then both have the same."""
        for operation in operations:
            self.names.add(operation.name)
            if operation.name in ("fill", "step"):
                self.compare()
            self.worker.repeat(operation)

    def compare(self) -> None:
        for layers, number in self.leader._numbers.items():
            if number in self.worker.layers:  # else it was made for this call
                assert arrays(layers) == arrays(self.worker.layers[number])

    def finish(self) -> None:
        """Tell the rest, after which the worker has nothing that the leader has not."""
        self.leader.flush()
        self.compare()
        assert set(self.worker.layers) == set(self.leader._numbers.values())


def arrays(layers: Layers) -> list[Any]:
    """Give all that layers hold, as values that can be compared."""
    return [flat(cache.state) for cache in layers.caches]


def flat(state: Any) -> Any:
    if isinstance(state, mx.array):
        return (state.shape, bytes(memoryview(mx.view(mx.contiguous(state), mx.uint8))))
    return [flat(one) for one in state] if isinstance(state, list | tuple) else state


@pytest.fixture(scope="module", params=list(EVERY))
def workshop(request: pytest.FixtureRequest, tiny: Path) -> Workshop:
    return Workshop(request.param, tiny)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(draw=st.data())
def test_a_worker_has_what_the_leader_has_whatever_comes_and_goes(workshop: Workshop, draw: st.DataObject) -> None:
    pair = Pair(workshop.model)
    scheduler = workshop.scheduler(
        model=pair.model,
        cache_bytes=draw.draw(st.sampled_from((0, 10_000, 2**30))),
        outbox=Letters(),
        chunk_sizer=SlowMachine(draw.draw(st.sampled_from((100, 100_000)))),
        controls=frozenset({TEXTS[0][20], TEXTS[0][90]}),
    )
    rows: list[Row] = []
    for _ in range(draw.draw(st.integers(2, 8))):
        action = draw.draw(st.sampled_from(("submit", "submit", "turn", "cancel", "step", "evict")))
        if action == "submit" or not rows:
            text = TEXTS[draw.draw(st.integers(0, 2))]
            rows.append(row_of(workshop, draw, text[: draw.draw(st.integers(1, 400))]))
            scheduler.submit(rows[-1])
        elif action == "turn":
            before = draw.draw(st.sampled_from(rows))
            rows.append(row_of(workshop, draw, [*before.prompt, *before.answer, 30, 31, 32]))
            scheduler.submit(rows[-1])
        elif action == "cancel":
            row = draw.draw(st.sampled_from(rows))
            assert row.generation is not None
            scheduler.cancel(row.generation)
        elif action == "evict":
            scheduler.prefixes.evict(1)
        for _ in range(draw.draw(st.integers(0, 12))):
            scheduler.step()
    while scheduler.busy:
        scheduler.step()
    pair.finish()
    scheduler.prefixes.clear()
    del rows, scheduler


def row_of(workshop: Workshop, draw: st.DataObject, prompt: list[int]) -> Row:
    proposer = PromptLookupProposer(4) if draw.draw(st.booleans()) else None
    params = draw.draw(PARAMS)
    row = workshop.row(prompt, params, draw.draw(st.integers(1, 24)), proposer=proposer)
    row.generation = Reader()
    if draw.draw(st.integers(0, 3)) == 0:
        sibling = workshop.row(prompt, params, 8)
        sibling.generation, row.siblings = Reader(), [sibling]
    return row


def test_answers_of_a_led_model_are_those_of_the_model_alone(workshop: Workshop) -> None:
    pair = Pair(workshop.model)
    scheduler = workshop.scheduler(model=pair.model, cache_bytes=2**30)
    for params in (SamplingParams(), SamplingParams(temperature=1.0, seed=7)):
        rows = [workshop.row(text[:length], params, 20) for text, length in zip(TEXTS, (3, 80, 200), strict=True)]
        for row in rows:
            scheduler.submit(row)
            scheduler.step()
        while scheduler.busy:
            scheduler.step()
        assert [row.answer for row in rows] == [workshop.alone(row.prompt, params, 20) for row in rows]
    pair.finish()


def test_whether_rows_may_be_computed_together_is_found_with_workers_as_without(workshop: Workshop) -> None:
    pair = Pair(workshop.model)
    assert check_batching(pair.model, 768, 4096, 2**30) == check_batching(
        LanguageModel(workshop.model), 768, 4096, 2**30
    )
    pair.finish()
    assert not pair.worker.layers


def test_every_operation_does_the_same_at_a_worker(tiny: Path) -> None:
    pair = Pair(Workshop("llama", tiny).model)
    rows = [pair.model.new_layers() for _ in range(3)]
    for row, text in zip(rows, TEXTS, strict=True):
        pair.model.fill(row, [text[:60]])
        pair.leader.flush()
    checkpoint = rows[0].checkpoint(True)
    pair.model.step(rows[0], mx.array([[5, 6]]))
    rows[0].go_back(checkpoint, 2, True)
    rows[0].trim(40)
    rows[0].compact()
    batch = rows[0].merge(rows[1].copy())
    other = rows[1].merge(rows[2])
    batch.extend(other)
    pair.model.step(batch, mx.array([[1, 2, 3]] * 4))
    batch.trim_rows([2, 0, 1, 2])
    pair.model.fill(batch, [[1, 2], [3, 0], [4, 0], [5, 0]], [0, 1, 1, 1])
    batch.filter([0, 2, 3])
    alone = batch.extract(1)
    alone.lengthen(300)
    alone.evaluate()
    pair.model.step(alone.fork(2), mx.array([[1], [2]]))
    pair.finish()
    assert set(OPERATIONS) <= pair.names


def test_what_failed_is_not_tried_again(tiny: Path) -> None:
    """Where memory runs out on one machine alone, the others are ahead of it."""
    workshop = Workshop("llama", tiny)
    for fails_after in (10, 60):
        network = Counting(workshop.model)
        scheduler = workshop.scheduler(model=LedModel(network, Leader(lambda operations: None)))
        network.tokens, network.fails_after = 0, fails_after
        scheduler.submit(workshop.row(TEXTS[0][:50], SamplingParams(), 24))
        with pytest.raises(MemoryError):
            while scheduler.busy:
                scheduler.step()


def test_a_worker_does_nothing_but_what_is_done_to_layers() -> None:
    worker = Worker(LanguageModel(None))
    for name in ("__init__", "eval", "record", "os.system"):
        with pytest.raises(KeyError):
            worker.repeat(Operation(name, [], []))
    assert all(not name.startswith("_") for name in OPERATIONS)


def quantized(**shape: Any) -> Any:
    network = random_model("llama", num_attention_heads=4, num_key_value_heads=4, hidden_size=128, **shape)
    nn.quantize(network, group_size=64)
    return network


@pytest.mark.parametrize(
    "make, machines, outcome",
    [
        (lambda: random_model("llama", num_key_value_heads=2), 2, "tensor"),
        (lambda: random_model("llama"), 2, "num_key_value_heads is 1; no number of machines would do"),
        (
            lambda: random_model("llama", num_attention_heads=6, num_key_value_heads=6),
            4,
            "num_attention_heads is 6; 2 would do",
        ),
        (lambda: quantized(intermediate_size=256), 2, "tensor"),
        (lambda: quantized(intermediate_size=320), 2, "; no number of machines would do"),
        (lambda: random_model("mamba2"), 2, "tensor: mlx-lm has no way for this architecture; pipeline: mlx-lm has no"),
        (lambda: random_model("qwen2", num_key_value_heads=1), 2, "pipeline"),
        (lambda: random_model("qwen2", num_key_value_heads=1), 3, "pipeline: it has 2 layers"),
    ],
)
def test_how_a_model_is_shared_out_is_known_before_anything_is_read(make: Any, machines: int, outcome: str) -> None:
    def choose() -> str:
        return sharding.choose(make(), make, machines, "auto", ())

    if outcome in ("tensor", "pipeline"):
        assert choose() == outcome
    else:
        with pytest.raises(LoadFailed, match=re.escape(outcome)):
            choose()


@pytest.mark.parametrize("back_end", ["jaccl", "jaccl-ring", "nccl"])
def test_machines_have_the_variables_that_mlx_launch_gives_them(back_end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of MLX's own launcher, which would start processes by them here."""
    names = ("mac1", "mac2", "mac2")
    devices = [[None if at == to else f"rdma_en{to}" for to in range(3)] for at in range(3)]
    given = Hostfile(
        tuple(Host(ssh, ("10.0.0.1",), tuple(rdma)) for ssh, rdma in zip(names, devices, strict=True)),
        back_end,
        (("MLX_METAL_FAST_SYNCH", "1"),),
    )
    started: list[tuple[Any, ...]] = []
    monkeypatch.setattr(launch, "_launch_with_io", lambda kind, processes, verbose: started.extend(processes))
    theirs = [common.Host(rank, host.ssh, list(host.ips), list(host.rdma)) for rank, host in enumerate(given.hosts)]
    asked = argparse.Namespace(
        backend=back_end,
        env=["MLX_METAL_FAST_SYNCH=1"],
        cwd=None,
        verbose=False,
        python="python",
        starting_port=32323,
        nccl_port=32323,
        repeat_hosts=3,
    )
    launcher = launch.launch_nccl if back_end == "nccl" else launch.launch_jaccl
    launcher(argparse.ArgumentParser(), theirs, asked, ["serve"])
    at = addresses(given)
    for rank, ((_, _, _, _, files, env, _), _) in enumerate(started):
        own = variables_of(rank, given, at)
        expected = dict(line.split("=", 1) for line in env) | files
        if back_end == "nccl":  # MLX counts through all GPUs of one machine, whichever processes are on which
            assert own.pop("CUDA_VISIBLE_DEVICES") == ["0", "0", "1"][rank]
            expected.pop("CUDA_VISIBLE_DEVICES")
        assert own == expected


@pytest.mark.parametrize("kind, machines", [("tensor", 2), ("tensor", 4), ("pipeline", 2)])
def test_little_memory_beside_a_share_is_needed_to_read_it(
    kind: Any, machines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_model.build(tmp_path / "model", hidden=256, layers=6, model_type="qwen2")
    monkeypatch.setattr(loading, "_SLICE_BYTES", 2**21)
    mx.reset_peak_memory()
    one = partial(sharding.share, group=sharding._Machine(machines), kind=kind, split=None)
    arrays = loading.weights(loading.load_share(folder, one, False)).values()
    largest = max(array.nbytes for array in arrays)
    assert mx.get_peak_memory() - mx.get_active_memory() <= 2**21 + machines * largest


KEY = b"k" * 32


@contextmanager
def connected(leader_key: bytes = KEY, worker_key: bytes = KEY, silence: float = 5.0) -> Iterator[list[Channel]]:
    """Connect two channels, the leader's first."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        worker_end = socket.create_connection(listener.getsockname())
        leader_end = listener.accept()[0]
    with leader_end, worker_end, ThreadPoolExecutor(1) as other:
        worker = other.submit(Channel, worker_end, worker_key, is_leader=False, silence=silence)
        yield [Channel(leader_end, leader_key, is_leader=True, silence=silence), worker.result()]


MESSAGES: list[Message] = [
    Beat(5),
    Stop(),
    Work(
        [Operation("fill", [3], [[[1, 2], [3, 4]], []]), Operation("merge", [1, 2], [], 7), Operation("drop", [1], [])]
    ),
]


def test_messages_arrive_as_they_were_sent() -> None:
    with connected() as (leader, worker):
        for message in MESSAGES:
            leader.send(message)
            assert worker.receive() == message
        worker.send(Beat(2**40))
        assert leader.receive() == Beat(2**40)


def test_who_does_not_know_the_key_is_refused() -> None:
    with pytest.raises(ChannelLost, match="does not know the key"), connected(worker_key=b"x" * 32):
        pytest.fail("it was taken in")


def test_who_is_silent_or_gone_is_noticed() -> None:
    with connected(silence=0.2) as (leader, worker):
        with pytest.raises(ChannelLost, match=r"silent for 0\.2 s"):
            leader.receive()
        worker.close()
        with pytest.raises(ChannelLost, match="connection lost"):
            leader.receive()


@settings(max_examples=60, deadline=None)
@given(noise=st.binary(min_size=1, max_size=200))
def test_noise_ends_a_channel_and_nothing_else(noise: bytes) -> None:
    with connected() as (leader, worker):
        worker._connection.sendall(noise)
        worker.close()
        with pytest.raises(ChannelLost):
            while True:
                leader.receive()


def test_a_message_that_is_too_long_is_not_read() -> None:
    with connected() as (leader, worker):
        worker._connection.sendall((2**31).to_bytes(4, "big"))
        with pytest.raises(ChannelLost, match="too much"):
            leader.receive()


@pytest.mark.parametrize(
    "act, reason",
    [
        (lambda worker: worker.send(Failure("MemoryError: none is left")), "failed: MemoryError: none is left"),
        (lambda worker: worker.send(Stop()), "is gone: it says Stop unasked"),
        (lambda worker: worker.close(), "is gone: connection lost"),
        (lambda worker: None, "is gone: silent for 0.5 s"),
    ],
)
def test_a_worker_that_fails_or_is_gone_ends_the_group_with_its_reason(act: Any, reason: str) -> None:
    lost: list[str] = []
    machines = Hostfile((Host("here", ("127.0.0.1",)), Host("studio", ("127.0.0.2",))))
    group = Group(GroupConfig(machines), lost.append)
    group._is_joined = group._is_serving = True
    with connected(silence=0.5) as (leader, worker):
        group._workers[0].channel = leader
        group._take(group._workers[0], leader)
        act(worker)
        assert group._over.wait(10)
        assert group.fail(RuntimeError("[ring] connection to a peer was lost")).message == group.lost
        assert group.lost == f"Machine 2 of 2 (studio) {reason}"
        with pytest.raises(GroupLost):
            group.leader.flush()
        wait_for(lambda: lost == [group.lost])


def test_a_first_host_that_is_not_this_machine_is_named(tmp_path: Path) -> None:
    hosts = (Host("elsewhere", ("192.0.2.7",)), Host("127.0.0.1", ("127.0.0.1",)))
    config = GroupConfig(Hostfile(hosts))
    with pytest.raises(GroupNotFormed, match=r"first host of --hostfile, and cannot listen on 192\.0\.2\.7: "):
        next(connect([], config, addresses(config.hostfile), tmp_path, "auto", lambda worker, channel: None))
