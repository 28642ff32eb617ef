"""What the server counts is what was asked of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.services.engine.scheduler.meter import Histogram, Meter
from app.services.generation import Timings
from app.services.metrics import Metrics
from tests.conftest import Server, running
from tests.prometheus import read, samples, value

LLAMA_CPPS = {
    "prompt_tokens_total": "counter",
    "prompt_tokens_cached_total": "counter",
    "prompt_seconds_total": "counter",
    "tokens_predicted_total": "counter",
    "tokens_predicted_seconds_total": "counter",
    "n_decode_total": "counter",
    "n_tokens_max": "gauge",
    "prompt_tokens_seconds": "gauge",
    "predicted_tokens_seconds": "gauge",
    "requests_processing": "gauge",
    "requests_deferred": "gauge",
    "n_busy_slots_per_decode": "gauge",
}


@pytest.fixture(scope="module")
def counted(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of which nobody else asks anything."""
    with running(tmp_path_factory.mktemp("metrics"), "--model", str(tiny), "--max-batch", "4") as server:
        yield server
        assert server.errors() == []


def test_llama_cpps_names_are_there_with_their_types(server: Server) -> None:
    text = server.client.get("/metrics").text
    for name, kind in LLAMA_CPPS.items():
        assert f"# TYPE llamacpp:{name} {kind}\n" in text
        assert f"# HELP llamacpp:{name} " in text
    assert "_created" not in text


@pytest.mark.slow
def test_tokens_and_steps_are_those_of_the_answers(counted: Server) -> None:
    before = read(counted)
    usages = [counted.chat(f"Number {place}", max_tokens=8, seed=place).json() for place in range(3)]
    counted.stream("Number 0", max_tokens=5)
    after = read(counted)
    completion = [answer["timings"]["predicted_n"] for answer in usages]
    grown = {name: value(after, f"llamacpp:{name}") - value(before, f"llamacpp:{name}") for name in LLAMA_CPPS}
    assert grown["tokens_predicted_total"] >= sum(completion) + 1
    assert grown["tokens_predicted_total"] <= sum(completion) + 5
    # an answer that ends by itself is seen to once the next step is under way
    assert 0 <= grown["n_decode_total"] - grown["tokens_predicted_total"] <= 4
    assert grown["prompt_tokens_total"] >= sum(answer["timings"]["prompt_n"] for answer in usages)
    assert grown["prompt_tokens_cached_total"] > 0
    assert value(after, "llamacpp:n_busy_slots_per_decode") == 1
    assert value(after, "llamacpp:n_tokens_max") >= max(answer["usage"]["total_tokens"] for answer in usages)
    assert value(after, "llamacpp:predicted_tokens_seconds") > 0
    assert value(read(counted), "llamacpp:predicted_tokens_seconds") == 0


@pytest.mark.slow
def test_an_answer_is_in_every_latency(counted: Server) -> None:
    before = read(counted)
    said = counted.chat("Hello", max_tokens=6, ignore_eos=True).json()
    after = read(counted)

    def grown(name: str) -> float:
        return value(after, f"tiles_{name}") - value(before, f"tiles_{name}")

    assert said["timings"]["predicted_n"] == 6
    assert grown("time_to_first_token_seconds_count") == grown("answer_seconds_count") == 1
    assert grown("inter_token_seconds_count") == 5
    assert grown("batch_rows_count") == 6
    assert grown("answer_seconds_sum") >= grown("time_to_first_token_seconds_sum") > 0
    assert grown("answer_seconds_sum") == pytest.approx(said["metrics"]["total_latency_s"], abs=0.01)


def test_requests_are_counted_by_dialect_and_status(server: Server) -> None:
    before = read(server)
    server.chat(max_tokens=1)
    server.chat(temperature=-1)
    server.client.post("/tokenize", json={"content": "a"})
    server.client.post("/v1/messages", json={"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1})
    server.client.get("/a-path/that-nobody-knows?secret=yes")
    server.client.get("/v1/models", headers={"Host": "evil.example"})
    after = read(server)

    def grown(dialect: str, status: str) -> float:
        labels = {"dialect": dialect, "status": status}
        return value(after, "tiles_requests_total", **labels) - value(before, "tiles_requests_total", **labels)

    assert [grown("OpenAI", "200"), grown("OpenAI", "422"), grown("llama.cpp", "200")] == [1, 1, 1]
    assert [grown("Anthropic", "200"), grown("none", "404"), grown("none", "403")] == [1, 1, 1]


def test_nothing_that_was_said_is_in_it(server: Server) -> None:
    server.chat("a-very-secret-word", max_tokens=2, user="somebody-secret", model="secret-model")
    text = server.client.get("/metrics").text
    assert "secret" not in text
    labels = {name for _, pairs in samples(text) for name, _ in pairs}
    assert labels == {"dialect", "status", "known", "kind", "le"}


def test_the_cache_and_the_memory_are_told(server: Server) -> None:
    before = read(server)
    for _ in range(2):
        server.chat("The same words again", max_tokens=4, temperature=0)
    after = read(server)
    whole = value(after, "tiles_prefix_cache_lookups_total", known="whole")
    assert whole > value(before, "tiles_prefix_cache_lookups_total", known="whole")
    assert value(after, "tiles_prefix_cache_bytes") > 0
    assert value(after, "tiles_memory_bytes", kind="resident") > 2**20
    assert (
        value(after, "tiles_memory_bytes", kind="mlx_peak") >= value(after, "tiles_memory_bytes", kind="mlx_active") > 0
    )


def test_embedded_texts_count_as_prompts(server: Server) -> None:
    before = read(server)
    used = server.client.post("/v1/embeddings", json={"input": ["Hello", "you there"]}).json()["usage"]
    grown = value(read(server), "llamacpp:prompt_tokens_total") - value(before, "llamacpp:prompt_tokens_total")
    assert grown == used["prompt_tokens"]


@pytest.mark.slow
def test_what_runs_and_what_waits_is_told(counted: Server) -> None:
    body = {"prompt": ["Hello"] * 6, "max_tokens": 4000, "ignore_eos": True, "stream": True, "stop_repetition": False}
    with counted.client.stream("POST", "/v1/completions", json=body) as stream:
        next(stream.iter_lines())
        found = read(counted)
        assert value(found, "llamacpp:requests_processing") == 4
        assert value(found, "llamacpp:requests_deferred") == 2


def test_its_type_is_prometheus_own_to_the_letter(server: Server) -> None:
    answer = server.client.get("/metrics")
    assert answer.headers.get_list("content-type") == ["text/plain; version=0.0.4; charset=utf-8"]
    assert server.client.get("/props").json()["endpoint_metrics"] is True


def test_it_wants_the_key(guarded: Server) -> None:
    assert guarded.client.get("/metrics").status_code == 401


def test_a_histogram_counts_a_value_in_the_first_bound_that_holds_it() -> None:
    histogram = Histogram(1, 2, 4)
    for number in (0.5, 1, 1.5, 4, 9):
        histogram.add(number)
    histogram.add(2, 3)
    assert histogram.counts == [2, 4, 1, 1]
    assert histogram.total == 0.5 + 1 + 1.5 + 4 + 9 + 6
    meter = Meter()
    meter.batch_rows = histogram
    found = samples(Metrics(meter).text().decode())
    assert [value(found, "tiles_batch_rows_bucket", le=le) for le in ("1.0", "2.0", "4.0", "+Inf")] == [2, 6, 7, 8]
    assert value(found, "tiles_batch_rows_count") == 8


def test_the_rate_leaves_out_the_first_token() -> None:
    meter = Meter()
    metrics = Metrics(meter)
    meter.count_answer(Timings(0, 5, 10.0, 1, 0.0, 10.0, 10.0))
    assert value(samples(metrics.text().decode()), "llamacpp:predicted_tokens_seconds") == 0
    meter.count_answer(Timings(0, 5, 10.0, 11, 500.0, 10.0, 510.0))
    assert value(samples(metrics.text().decode()), "llamacpp:predicted_tokens_seconds") == 20
