"""What the server counts, as Prometheus reads it: llama.cpp's names, and ours."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate

import psutil
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from app.services.engine.scheduler.meter import Histogram, Meter


class Exposition(Collector):
    """Reads the meter, and the requests by dialect and status, when it is asked."""

    def __init__(self, meter: Meter, requests: Mapping[tuple[str, str], int], process: psutil.Process) -> None:
        self._meter = meter
        self._requests = requests
        self._process = process
        self._rates = (_Rate(), _Rate())  # of prompts and answers
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """Write everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def describe(self) -> Iterator[Metric]:
        """Nothing is described before it is asked for: that would be a scrape."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Give every metric."""
        yield from self._llama_cpps()
        yield from self._ours()
        yield from self._of_images()
        yield from self._latencies()

    def _llama_cpps(self) -> Iterator[Metric]:
        meter = self._meter
        for name, help_text, value in (
            ("prompt_tokens", "Tokens of prompts that were computed, without cached ones", meter.prompt_tokens),
            ("prompt_tokens_cached", "Tokens of prompts that came from the prefix cache", meter.cached_tokens),
            ("prompt_seconds", "Seconds that prompts took, summed over requests", meter.prompt_seconds),
            ("tokens_predicted", "Tokens of answers that are over", meter.answer_tokens),
            ("tokens_predicted_seconds", "Seconds that these took, summed over requests", meter.answer_seconds),
            ("n_decode", "Decoding steps", meter.steps),
        ):
            yield CounterMetricFamily(f"llamacpp:{name}", help_text, value)
        prompts, answers = self._rates
        for name, help_text, value in (
            ("n_tokens_max", "Tokens of the longest prompt with its answer", meter.longest),
            (
                "prompt_tokens_seconds",
                "Tokens a second of prompts since the last look here",
                prompts.since(meter.prompt_tokens, meter.prompt_seconds),
            ),
            (
                "predicted_tokens_seconds",
                "Tokens a second of answers since the last look here",
                answers.since(meter.following_tokens, meter.answer_seconds),
            ),
            ("requests_processing", "Requests that are being computed", meter.running),
            ("requests_deferred", "Requests that wait for a place in the batch", meter.waiting),
            ("n_busy_slots_per_decode", "Rows in a decoding step, on average", meter.rows / max(1, meter.steps)),
        ):
            yield GaugeMetricFamily(f"llamacpp:{name}", help_text, value)

    def _ours(self) -> Iterator[Metric]:
        meter = self._meter
        requests = CounterMetricFamily("tiles_requests", "Requests that were answered", labels=("dialect", "status"))
        for labels, value in sorted(self._requests.items()):
            requests.add_metric(labels, value)
        yield requests
        lookups = CounterMetricFamily(
            "tiles_prefix_cache_lookups", "Prompts by how much of them the prefix cache knew", labels=("known",)
        )
        for share, value in meter.cache_uses.items():
            lookups.add_metric([share], value)
        yield lookups
        for name, help_text, value in (
            ("draft_tokens", "Tokens drafted by speculative decoding, of answers that are over", meter.draft_tokens),
            ("draft_tokens_accepted", "Draft tokens that were accepted", meter.accepted_tokens),
        ):
            yield CounterMetricFamily(f"tiles_{name}", help_text, value)
        yield GaugeMetricFamily("tiles_prefix_cache_bytes", "Memory that the prefix cache holds", meter.cache_bytes)
        memory = GaugeMetricFamily("tiles_memory_bytes", "Memory of the server", labels=("kind",))
        for kind, size in zip(("mlx_active", "mlx_cache", "mlx_peak"), meter.memory, strict=True):
            memory.add_metric([kind], size)
        with suppress(OSError, psutil.Error):  # no descriptor is free, say
            memory.add_metric(["resident"], self._process.memory_info().rss)
        yield memory
        if meter.machines_free:
            free = GaugeMetricFamily("tiles_group_memory_free_bytes", "Free memory of other machines", labels=("rank",))
            for rank, size in enumerate(meter.machines_free, 1):
                free.add_metric([str(rank)], size)
            yield free

    def _of_images(self) -> Iterator[Metric]:
        counts = self._meter.images
        for name, help_text, value in (
            ("image_seconds", "Seconds in towers of models that see", counts.seconds),
            ("images", "Images that a tower computed", counts.computed),
            ("images_cached", "Images whose embeddings were still known", counts.cached),
            ("images_refused", "Requests with an image that could not be taken", counts.refused),
        ):
            yield CounterMetricFamily(f"tiles_{name}", help_text, value)

    def _latencies(self) -> Iterator[Metric]:
        meter = self._meter
        for name, help_text, histogram in (
            ("batch_rows", "Rows in a decoding step", meter.batch_rows),
            ("time_to_first_token_seconds", "From the acceptance of a request to its first token", meter.first_token),
            ("inter_token_seconds", "Between two tokens of an answer", meter.between_tokens),
            ("answer_seconds", "From the acceptance of a request to its last token", meter.whole_answer),
        ):
            yield HistogramMetricFamily(f"tiles_{name}", help_text, _buckets(histogram), histogram.total)


class _Rate:
    """How fast something grew since it was last asked for."""

    def __init__(self) -> None:
        self._before = (0, 0.0)

    def since(self, amount: int, seconds: float) -> float:
        grown, passed = amount - self._before[0], seconds - self._before[1]
        self._before = (amount, seconds)
        return grown / passed if passed > 0 else 0.0


def _buckets(histogram: Histogram) -> Sequence[tuple[str, float]]:
    names = [*(str(float(bound)) for bound in histogram.bounds), "+Inf"]
    return list(zip(names, accumulate(histogram.counts), strict=True))
