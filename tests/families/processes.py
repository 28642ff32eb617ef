"""The processes of a family: a server, and mlx-lm alone beside it. A crash of either ends neither the matrix nor more.

All are forked from one that has imported everything and computed nothing, so that starting one costs next to nothing.
"""

import json
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx

from app.services.engine.model import blas
from tests.conftest import wait_for

# MLX must not have computed anything before a fork, and Metal bears none at all.
CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
SECONDS = 120.0
Scores = list[tuple[float, float]]


class Wrong(Exception):
    """Something is not as it should be; the message says what."""


def imports() -> None:
    """Import what all processes need."""
    # On matrices so small the threads of a BLAS only wait for each other.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    blas.preload()
    import uvicorn  # noqa: F401

    from app import application  # noqa: F401
    from app.services.engine import assembly  # noqa: F401
    from tests.engine import architectures  # noqa: F401


def start(target: Callable[..., None], *arguments: Any, log: Path) -> Any:
    """Start a process whose output goes to a file."""
    process = CONTEXT.Process(target=_logged, args=(target, log, arguments))
    process.start()
    return process


def _logged(target: Callable[..., None], log: Path, arguments: tuple[Any, ...]) -> None:
    with log.open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    target(*arguments)


def ended(process: Any) -> str:
    """Say how a process ended."""
    process.join(10)
    code = process.exitcode
    return signal.Signals(-code).name if code is not None and code < 0 else f"exit {code}"


class Client(httpx.Client):
    """Talks to a server; an answer that is no success is wrong."""

    def ask(self, path: str, **body: Any) -> Any:
        answer = self.post(path, json=body)
        if answer.status_code != 200:
            raise Wrong(f"{path} answered {answer.status_code}: {answer.text[:200]}")
        return answer.json()

    def stream(self, path: str, **body: Any) -> Iterator[Any]:  # type: ignore[override]
        """The events of a streamed answer, while they come."""
        with super().stream("POST", path, json=body | {"stream": True}) as answer:
            if answer.status_code != 200:
                raise Wrong(f"{path} answered {answer.status_code}")
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        raise Wrong(f"the stream failed: {event['error']}")
                    yield event


@contextmanager
def server(home: Path, *flags: str) -> Iterator[Client]:
    """A server that runs until the block ends; whatever it logs as an error is wrong."""
    log = home / "server.log"
    log.write_text("")
    process = start(_serve, home, flags, log=log)
    try:
        url = wait_for(lambda: _address(process, log), SECONDS, what="the address")
        with Client(base_url=url, timeout=SECONDS) as client:
            wait_for(lambda: _is_ready(process, client, log), SECONDS, what="the model")
            try:
                yield client
            except httpx.TransportError as error:
                if process.is_alive():
                    raise
                raise Wrong(f"the server ended: {ended(process)}") from error
    finally:
        process.terminate()
        process.join(30)
        if process.is_alive():
            process.kill()
        process.join()


def _serve(home: Path, flags: Sequence[str]) -> None:
    from app.commands.cli import main

    for name in list(os.environ):
        if name.startswith(("TILES_", "HF_")):
            del os.environ[name]
    os.environ.update(HOME=str(home), HF_HUB_OFFLINE="1", NO_COLOR="1")
    sys.argv = ["tiles-server", "serve", "--port", "0", "--log-format", "json", *flags]
    main()


def _address(process: Any, log: Path) -> str | None:
    text = log.read_text()
    if not process.is_alive():
        raise Wrong(f"the server ended: {ended(process)}; {_last_error(text)}")
    match = re.search(r"^API +(http://127\.0\.0\.1:[0-9]+)/v1$", text, re.MULTILINE)
    return match[1] if match else None


def _is_ready(process: Any, client: Client, log: Path) -> bool:
    _address(process, log)
    if '"level": "error"' in log.read_text():
        raise Wrong(f"not loaded: {_last_error(log.read_text())}")
    try:
        ready = client.get("/health").status_code == 200
    except httpx.TransportError:  # it says its address before it listens
        return False
    if ready and '"model loaded"' not in log.read_text():
        raise Wrong(f"not loaded: {_last_error(log.read_text())}")
    return ready


def _last_error(text: str) -> str:
    """Give the last error of a log in one line, without its traceback, which names paths of this machine."""
    errors = [line for line in text.splitlines() if '"level": "error"' in line or "Error" in line]
    line = errors[-1] if errors else text
    try:
        record = json.loads(line)
    except ValueError:
        return line[-300:]
    return str(record.get("exception") or record["event"]).strip().rpartition("\n")[2][-300:]


class Reference:
    """mlx-lm alone, in a process of its own."""

    def __init__(self, build: Callable[[], Path], log: Path) -> None:
        self._connection, theirs = CONTEXT.Pipe()
        self._lock = threading.Lock()
        self._process = start(_compute, build, theirs, log=log)
        theirs.close()
        self._answers: dict[tuple[int, ...], tuple[list[int], list[float]]] = {}

    def greedy(self, ids: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        """The tokens that `generate_step` gives, and their log-probabilities."""
        known = self._answers.get(tuple(ids))
        if known is None or len(known[0]) < count:
            known = self._answers[tuple(ids)] = self._call("greedy", list(ids), count)
        return known[0][:count], known[1][:count]

    def scores(self, ids: Sequence[int], answer: Sequence[int]) -> Scores:
        """For each token of an answer, its log-probability and the highest one: one forward pass over all."""
        scores: Scores = self._call("scores", list(ids), list(answer))
        return scores

    def built(self) -> None:
        """Wait until the model is there."""
        self._call("built")

    def close(self) -> None:
        self._process.kill()  # servers that were forked since hold the other end of its connection
        self._process.join()

    def _call(self, *request: Any) -> Any:
        try:
            with self._lock:
                self._connection.send(request)
                if not self._connection.poll(SECONDS):
                    raise Wrong("mlx-lm alone does not answer")
                answer = self._connection.recv()
        except (EOFError, OSError):
            raise Wrong(f"mlx-lm alone ended: {ended(self._process)}") from None
        if isinstance(answer, str):
            raise Wrong(f"mlx-lm alone: {answer}")
        return answer


def _compute(build: Callable[[], Path], connection: Connection) -> None:
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load_model

    model: Any = None

    def built() -> int:
        nonlocal model
        model = load_model(build())[0]
        return 0

    def greedy(ids: list[int], count: int) -> tuple[list[int], list[float]]:
        steps = [
            (int(token), logprobs[token].item())
            for token, logprobs in generate_step(mx.array(ids), model, max_tokens=count)
        ]
        return [token for token, _ in steps], [logprob for _, logprob in steps]

    def scores(ids: list[int], answer: list[int]) -> Scores:
        from mlx_lm.models.cache import make_prompt_cache

        logits = model(mx.array([ids + answer])[:, :-1], cache=make_prompt_cache(model))[0, len(ids) - 1 :]
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        return [(row[token].item(), mx.max(row).item()) for row, token in zip(logprobs, answer, strict=True)]

    while True:
        try:
            name, *arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send({"built": built, "greedy": greedy, "scores": scores}[name](*arguments))
        except Exception as error:
            connection.send(f"{type(error).__name__}: {error}"[:300])
