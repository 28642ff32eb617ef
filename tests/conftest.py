"""Real servers on small real models, which the suite shares. The plain one and the guarded one are asked most."""

import gc
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest

from app.services.engine.model import blas
from tests import documented, lora, tiny_model, vision_models

# How long an example takes says nothing of a machine that does other things too. By hand, each run draws new examples;
# where a change is judged, all runs draw the same.
hypothesis.settings.register_profile("tests", deadline=None, derandomize="TILES_TEST_DERANDOMIZE" in os.environ)
hypothesis.settings.load_profile("tests")

START_SECONDS = 60.0

# What a process starts with is compiled once, not by each of the hundreds that tests start, where an environment keeps
# Python from writing beside its sources.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")


@dataclass
class Server:
    """A server process and how to talk to it."""

    url: str
    home: Path
    process: subprocess.Popen[str]
    client: httpx.Client
    log_path: Path
    lines: list[str] = field(default_factory=list)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def chat(self, text: str = "Hello", **more: Any) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 16} | more
        return self.client.post("/v1/chat/completions", json=body)

    def stream(self, text: str = "Hello", **more: Any) -> list[dict[str, Any]]:
        """The events of a streamed chat, up to its end mark."""
        answer = self.chat(text, stream=True, **more)
        assert answer.status_code == 200, answer.text
        return events(answer.text)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log's lines of one kind; only whole lines."""
        lines = [json.loads(line) for line in self.log.splitlines(keepends=True) if line.endswith("}\n")]
        return [line for line in lines if line.get("event") == event]

    def errors(self) -> list[str]:
        return [line for line in self.log.splitlines() if '"level": "error"' in line or "Traceback" in line]

    def stop(self, seconds: float = 20.0) -> int:
        self.process.terminate()
        return self.process.wait(seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file of which nothing is to be run need not be imported: all of them take ten seconds."""
    if collection_path.suffix != ".py" or not (expression := config.option.markexpr):
        return None
    if collection_path.parent.name == "clients" and "not clients" in expression:
        return True
    text = collection_path.read_text()
    of_slow_alone = re.search(r"^pytestmark = \[?pytest\.mark\.slow\b", text, re.MULTILINE)
    left_out = of_slow_alone if "not slow" in expression else expression == "slow" and "mark.slow" not in text
    return True if left_out else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files whose slow tests take longest: at the end, one process would be alone with them.

    schemathesis gives its tests names, but with pytest 9.2 one id, and in any order; pytest-xdist runs those of an id
    once, and wants one order. So each gets its own id, and they are sorted.
    """
    for item in items:
        if not item.nodeid.endswith(item.name):
            item._id = type(item._id).parse(f"{item.nodeid.rpartition('::')[0]}::{item.name}")  # type: ignore[attr-defined]
    fuzzing = "test_schema_fuzzing.py"
    items.sort(key=lambda item: item.nodeid if item.path.name == fuzzing else "")  # the others stay in their order
    items.sort(key=lambda item: item.path.name not in ("test_same_answers.py", fuzzing))


def pytest_collection_finish() -> None:
    """What is there by now is there to stay: no collection of garbage has to look at it again."""
    gc.collect()
    gc.freeze()


def events(text: str, *, ended: bool = True) -> list[dict[str, Any]]:
    """Parse a stream as a strict client does; comments are left out."""
    assert "\r" not in text
    assert text.endswith("\n\n")
    blocks = [block for block in text[:-2].split("\n\n") if not block.startswith(":")]
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    data = [block.removeprefix("data: ") for block in blocks]
    assert data.count("[DONE]") == int(ended)
    if ended:
        assert data.pop() == "[DONE]"
    return [json.loads(item) for item in data]


def said(chunks: list[dict[str, Any]], field: str = "content") -> str:
    """The text of a stream's deltas."""
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get(field) or "" for delta in deltas)


def environment(home: Path, **more: str) -> dict[str, str]:
    """An environment in which nothing of the machine's own settings is seen."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TILES_", "HF_"))}
    return kept | {"HOME": str(home), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"} | more


def wait_for(condition: Callable[[], Any], seconds: float = START_SECONDS, *, what: str = "it") -> Any:
    """Ask until the condition holds; a test that gives up says for what it waited."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    pytest.fail(f"waited {seconds:.0f} s for {what} in vain")


@contextmanager
def running(
    home: Path,
    *flags: str,
    env: dict[str, str] | None = None,
    ready: bool = True,
    program: Sequence[str] = ("-m", "app"),
    seconds: float = START_SECONDS,
) -> Iterator[Server]:
    """Run `python -m app` with these flags until the block ends."""
    log_path = home / f"server-{next(_numbers)}.log"
    # A port that is free now may be anybody's by the time the server listens, so it takes one by itself.
    command = [sys.executable, *program, "serve", "--port", "0", "--log-format", "json", *flags]
    with log_path.open("w") as log:
        process = subprocess.Popen(command, stderr=log, text=True, env=environment(home, **(env or {})))
    try:
        url = wait_for(lambda: _address(process, log_path), seconds, what="the address of the server")
        with httpx.Client(base_url=url, timeout=60, event_hooks={"response": [documented.check]}) as client:
            server = Server(url, home, process, client, log_path)
            wait_for(lambda: _answers(server, ready), seconds, what=f"the server; its log says: {server.log[-2000:]}")
            yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


_numbers = itertools.count()


def _address(process: subprocess.Popen[str], log_path: Path) -> str | None:
    """Where the server listens, as it says itself."""
    _check_runs(process, log_path)
    match = re.search(r"^API +(http://127\.0\.0\.1:[0-9]+)/v1$", log_path.read_text(), re.MULTILINE)
    return match[1] if match else None


def _check_runs(process: subprocess.Popen[str], log_path: Path) -> None:
    if process.poll() is not None:
        pytest.fail(f"the server ended with {process.returncode}: {log_path.read_text()[-2000:]}")


def _answers(server: Server, ready: bool) -> bool:
    _check_runs(server.process, server.log_path)
    try:
        answer = server.client.get("/health" if ready else "/ping")
    except httpx.TransportError:
        return False
    return answer.status_code == 200


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with random weights, a real tokenizer and a chat template."""
    return tiny_model.build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home folder."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on the tiny model, without a key. Whatever the tests do to it, it may log no error."""
    with running(tmp_path_factory.mktemp("plain"), "--model", str(tiny)) as server:
        yield server
        assert server.errors() == []


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a tiny model that sees. It may log no error."""
    folder = vision_models.build(tmp_path_factory.mktemp("models") / "seeing")
    with running(tmp_path_factory.mktemp("seeing"), "--model", str(folder)) as server:
        yield server
        assert server.errors() == []


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the demo model, which greets and remembers names. It may log no error."""
    with running(tmp_path_factory.mktemp("demo"), "--demo") as server:
        yield server
        assert server.errors() == []


@pytest.fixture(scope="session")
def adapters(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters over the tiny model; the second changes its embedding too."""
    blas.preload()
    folder = tmp_path_factory.mktemp("adapters")
    first = lora.write(tiny, folder / "first", seed=1)
    keys = ["self_attn.q_proj", "mlp.down_proj", "model.embed_tokens"]
    return [first, lora.write(tiny, folder / "second", seed=3, keys=keys, layers=1)]


@pytest.fixture(scope="session")
def adapted(tiny: Path, adapters: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with both adapters, of which the first counts unless a request says otherwise. It may log no error."""
    home = tmp_path_factory.mktemp("adapted")
    with running(home, "--model", str(tiny), "--lora", str(adapters[0]), "--lora", f"{adapters[1]}:0") as server:
        yield server
        assert server.errors() == []


CONTEXT = 1024
KEY, OTHER_KEY = "a-key-of-the-tests", "another-key"
GUARDS = (
    *("--api-key", KEY, "--api-key", OTHER_KEY),
    *("--allow-host", "tiles.example", "--allow-origin", "https://app.example"),
    *("--max-body", "64K", "--context-length", str(CONTEXT)),
)


@pytest.fixture(scope="session")
def guarded(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with keys, an allowed host, an allowed origin and small limits."""
    home = tmp_path_factory.mktemp("guarded")
    (home / "ui.json").write_text('{"theme": "dark", "temperature": 0.3}')
    with running(home, "--model", str(tiny), "--ui-settings", str(home / "ui.json"), *GUARDS) as server:
        yield server
        assert server.errors() == []
