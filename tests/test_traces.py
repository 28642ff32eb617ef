"""Traces of OpenTelemetry: what is in them, whose they are, and that nothing of them is there where they are off."""

import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.services.recent_timings import TimedRequest
from app.services.stages import Stages
from app.services.traces import Traces
from app.settings import SettingError, read
from tests.conftest import environment, running, wait_for
from tests.http_server import serving

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STAGES = ("request", "template", "queue", "cache", "prompt", "first_token", "tokens", "client")


def spans_of(times: list[float], headers: dict[str, str]) -> list[ReadableSpan]:
    """The spans of an answer, by OpenTelemetry's own exporter in memory."""
    *begins, end = times
    stages = Stages(*begins)
    request = TimedRequest("req_1", 0.0, "/v1/messages", "tiles-nano", "stop", 12, 8, 3, stages.timing(end))
    exporter = InMemorySpanExporter()
    traces = Traces(exporter)
    traces.record(request, stages, end, headers)
    traces.close()
    return list(exporter.get_finished_spans())


def test_an_answer_is_a_span_in_the_words_of_the_conventions() -> None:
    *stages, span = spans_of([float(second) for second in range(9)], {})
    assert span.name == "chat tiles-nano" and span.parent is None
    assert span.resource.attributes["service.name"] == "tiles-server"
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "tiles",
        "gen_ai.request.model": "tiles-nano",
        "gen_ai.response.model": "tiles-nano",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.cache_read.input_tokens": 8,
        "gen_ai.usage.output_tokens": 3,
        "url.path": "/v1/messages",
        "tiles.request_id": "req_1",
        "tiles.grammar_ms": 0.0,
    }
    assert tuple(stage.name for stage in stages) == STAGES
    assert all(stage.parent == span.context for stage in stages)


@given(st.lists(st.floats(0, 1e4), min_size=9, max_size=9))
def test_the_stages_lie_within_their_answer_one_after_the_other(times: list[float]) -> None:
    times[-1] = max(times[0], times[-1])
    *stages, span = spans_of(times, {})
    ends = [span.start_time, *(stage.end_time for stage in stages)]
    assert [stage.start_time for stage in stages] == ends[:-1]
    assert ends[-1] == span.end_time
    assert span.end_time - span.start_time == pytest.approx((times[-1] - times[0]) * 1e9, abs=1000)


def test_a_trace_that_the_client_began_goes_on() -> None:
    times = [float(second) for second in range(9)]
    *_, span = spans_of(times, {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=b"})
    assert span.context is not None and span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
    assert span.context.trace_state.get("a") == "b"
    assert spans_of(times, {"traceparent": f"00-{TRACE}-{SPAN}-00"}) == []  # the client does not sample it
    for broken in ("", "nonsense", f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01"):
        *_, alone = spans_of(times, {"traceparent": broken})
        assert alone.parent is None


def test_an_endpoint_that_is_no_address_is_an_error() -> None:
    for text in ("localhost:4318", "grpc://localhost:4317", "http://"):
        with pytest.raises(SettingError, match=r"--otlp-traces-endpoint: .* give an address"):
            read({"otlp_traces_endpoint": text}, {})


def test_where_traces_are_off_nothing_of_them_is_imported() -> None:
    code = (  # Litestar itself takes names from opentelemetry.semconv, if that is installed
        "import sys; from app.application import create_app; from app.settings import Settings; create_app(Settings());"
        "own = ('opentelemetry.sdk', 'opentelemetry.trace', 'opentelemetry.exporter');"
        "print([name for name in sys.modules if name.startswith(own)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_without_the_packages_one_line_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = None; from app.commands.cli import main;"
        "main(['serve', '--demo', '--port', '0', '--otlp-traces-endpoint', 'http://localhost:1/v1/traces'])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "tiles-server: --otlp-traces-endpoint needs OpenTelemetry: install tiles-server[otel]\n"


@pytest.mark.slow
def test_a_collector_gets_the_traces_without_any_text(tiny: Path, tmp_path: Path) -> None:
    bodies: list[bytes] = []
    with serving(collector(bodies)) as address:
        flags = ("--model", str(tiny), "--otlp-traces-endpoint", f"{address}/v1/traces")
        with running(tmp_path, *flags, env={"OTEL_BSP_SCHEDULE_DELAY": "50"}) as server:
            headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "X-Request-Id": "traced"}
            body = {"messages": [{"role": "user", "content": "Bananarama"}], "max_tokens": 8}
            answer = server.client.post("/v1/chat/completions", json=body, headers=headers)
            assert answer.status_code == 200
            wait_for(lambda: bodies, what="the trace")
            server.chat("Last")
            assert server.stop() == 0
            assert server.errors() == []
    spans = [span for body in bodies for span in parsed(body)]
    answers = [span for span in spans if span.name.startswith("chat ")]
    assert len(answers) == 2  # the last one is sent at the end
    first = next(span for span in answers if span.trace_id.hex() == TRACE)
    assert first.parent_span_id.hex() == SPAN
    used = {one.key: one.value.int_value for one in first.attributes if one.key.startswith("gen_ai.usage")}
    assert used["gen_ai.usage.output_tokens"] == answer.json()["usage"]["completion_tokens"]
    assert {"template", "prompt", "tokens"} <= {span.name for span in spans if span.parent_span_id == first.span_id}
    assert b"Bananarama" not in b"".join(bodies)


def parsed(body: bytes) -> list[Any]:
    request = ExportTraceServiceRequest.FromString(body)
    return [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]


def collector(bodies: list[bytes]) -> Callable[..., BaseHTTPRequestHandler]:
    """What takes traces as a collector does."""

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            bodies.append(body)
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    return Collector
