"""A session of one program with the server, turn by turn, and what was seen of it."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.processes import free_port
from tests.agents.programs import Place, Program, write_files
from tests.agents.scripted_server import ONLOOKER
from tests.pictures import shapes

ROOT = Path(__file__).parents[2]
SECONDS = 300.0  # for whatever is waited for

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQMAAAD+wSzIAAAABlBMVEX///+/v7+jQ3Y5AAAADklEQVQI12P4AIX8EAgALgAD/aNpbtEAAAAASUVORK5CYII="
)
NOTE = "The kitchen has 42 tiles.\n"
DRAWN = "red circle"

# What a person says, and what the model says at last; a call of the program's own comes before it where it has one.
TURNS = {
    "ask": ("What is a tile?", "A tile is a thin slab of fired clay."),
    "read": ("What does notes.txt say?", "It says that the kitchen has 42 tiles."),
    "write": ("Write the file new.txt, with one tile more.", "The file new.txt says 43 tiles."),
    "run": ("Count the bytes of notes.txt into size.txt.", "The bytes are counted."),
    "follow": ("And how many tiles are there?", "There are still 42 of them."),
    "cut": ("Count to three thousand.", "One by one: " + ", ".join(map(str, range(1, 3001)))),
    "again": ("That is enough. Where did the tiles come from?", "They came from the river."),
    "image": ("Look at tile.png.", "I cannot see pictures."),
    "next": ("Never mind. Who made the tiles?", "Two brothers made them."),
    "restart": ("We were interrupted. What was the first question?", "You wanted to know what a tile is."),
}


class Fault(Exception):
    """What went wrong in a session, for the table."""


@dataclass
class Session:
    """The server, the program's home, and the requests of each turn."""

    program: Program
    executable: Path
    folder: Path
    path: str  # where programs are looked for
    sees: bool = False  # the model
    requests: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # for each turn
    faults: list[str] = field(default_factory=list)
    outside: set[str] = field(default_factory=set)  # hosts that it wanted to talk to

    def run(self, model: Path) -> None:
        """Take all turns. What goes wrong is among `faults`."""
        self._prepare()
        try:
            self._take_turns(model)
        except (Fault, TimeoutError) as error:
            self.faults.append(str(error))
        self._check_files()

    def show(self) -> None:
        """Have the demo model itself say what is in a picture that the program reads. What goes wrong is a fault."""
        self._prepare()
        try:
            said = self._say_what_is_drawn()
        except (Fault, TimeoutError, subprocess.TimeoutExpired) as error:
            self.faults.append(f"show: {error}")
            return
        if f"A {DRAWN}." not in said:
            self.faults.append(f"show: the demo model did not see a {DRAWN}: {said[-300:]!r}")

    def _say_what_is_drawn(self) -> str:
        assert self.program.with_little is not None
        (self.folder / "data" / "config.toml").write_text('[model."tiles-nano"]\ntemperature = 0\n')
        with closed_door(self.outside) as door, _drawing() as drawing:
            place = self._place(Path("tiles-nano"), free_port())
            environment = self._environment(place, door)
            write_files(self.program, place)
            asked = f"Read the file {drawing}. What do you see?"
            command = [*self._program(place), *self.program.with_little(asked)]
            with self._serving(["app", "serve", "--demo"], place.url):
                process = self._start("show", command, environment)
                try:
                    process.wait(SECONDS)
                finally:
                    _end(process)
        return (self.folder / "show.txt").read_text(errors="replace")

    def _take_turns(self, model: Path) -> None:
        with closed_door(self.outside) as door:
            place = self._place(model, free_port())
            environment = self._environment(place, door)
            write_files(self.program, place)
            script = self._write_script(place)
            turns = [turn for turn in TURNS if turn not in self.program.cannot]
            with self._server(script, model, place.url) as client:
                for turn in turns[:-1]:
                    self._turn(turn, place, client, environment)
            with self._server(script, model, place.url) as client:
                self._turn(turns[-1], place, client, environment)

    def _prepare(self) -> None:
        for name in ("home", "work", "records", "data", "server", "tmp"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "work" / "notes.txt").write_text(NOTE)
        (self.folder / "work" / "tile.png").write_bytes(PICTURE)

    def _place(self, model: Path, port: int) -> Place:
        home, work = self.folder / "home", self.folder / "work"
        return Place(home, work, f"http://127.0.0.1:{port}", model.name)

    def _environment(self, place: Place, door: str) -> dict[str, str]:
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), door)
        proxies |= {name.lower(): door for name in proxies}
        own = {
            "PATH": f"{self.executable.parent}:{self.path}",
            "PYTHONPATH": str(ROOT),
            "TILES_DATA_DIR": str(self.folder / "launch"),
            "HOME": str(place.home),
            "TMPDIR": str(self.folder / "tmp"),
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "DO_NOT_TRACK": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }
        return own | proxies | dict(self.program.environment(place))

    def _write_script(self, place: Place) -> Path:
        first = self.program.answers(place)
        turns = {turn: [*([first[turn]] if turn in first else []), answer] for turn, (_, answer) in TURNS.items()}
        script = self.folder / "script.json"
        script.write_text(json.dumps({"turns": turns, "has_tools": self.program.has_tools}))
        return script

    @contextmanager
    def _server(self, script: Path, model: Path, url: str) -> Iterator[httpx.Client]:
        """Run the server, scripted; what it had cached lies on the disk for the next one."""
        program = ["tests.agents.scripted_server", str(script), str(self.folder / "records")]
        with self._serving([*program, "serve", "--model", str(model)], url) as client:
            yield client

    @contextmanager
    def _serving(self, program: Sequence[str], url: str) -> Iterator[httpx.Client]:
        command = [sys.executable, "-m", *program, "--port", url.rpartition(":")[2], "--log-format", "json"]
        command += ["--data-dir", str(self.folder / "data")]
        others = {name: value for name, value in os.environ.items() if not name.startswith(("TILES_", "HF_"))}
        environment = others | {"HOME": str(self.folder / "server"), "HF_HUB_OFFLINE": "1"}
        with (self.folder / "server.log").open("a") as log:
            process = subprocess.Popen(command, stderr=log, stdout=log, env=environment)
        try:
            with httpx.Client(base_url=url, headers={"User-Agent": ONLOOKER}, trust_env=False, timeout=60) as client:
                wait_for(lambda: _is_ready(process, client), "the server")
                yield client
        finally:
            process.terminate()
            process.wait(60)

    def _turn(self, turn: str, place: Place, client: httpx.Client, environment: Mapping[str, str]) -> None:
        """Say what a turn begins with, and wait until the program has ended, or end it in the middle of the answer."""
        text, answer = TURNS[turn]
        arguments = self.program.arguments(place, f"[{turn}] {text}", not self.requests)
        before = len(self._records())
        process = self._start(turn, [*self._program(place), *arguments], environment)
        try:
            if turn == "cut":
                wait_for(lambda: process.poll() is not None or _is_decoding(client), "the long answer")
            else:
                process.wait(SECONDS)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            self.faults.append(f"{turn}: {error}")
        finally:
            _end(process)
        if turn == "image" and self.sees and not _has_seen(client):
            self.faults.append("image: the model was shown no picture")
        wait_for(lambda: all(record.get("ended") for record in self._records()[before:]), "the end of the requests")
        self.requests[turn] = self._records()[before:]
        self._check(turn, answer, process.returncode, (self.folder / f"{turn}.txt").read_text(errors="replace"))

    def _program(self, place: Place) -> list[str]:
        """How the program is started: by `launch`, with the profile that people get, where that knows it."""
        if (agent := self.program.agent) is None:
            return [str(self.executable)]
        return [sys.executable, "-m", "app", "launch", "--url", place.url, agent, "--"]

    def _start(self, turn: str, command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{turn}.txt").open("w") as file:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                cwd=self.folder / "work",
                env=dict(environment),
                start_new_session=True,
            )

    def _check(self, turn: str, answer: str, code: int, output: str) -> None:
        if turn == "cut":
            if not any(record["left"] for record in self.requests[turn]):
                self.faults.append("cut: no answer was left in its middle")
        elif answer not in output:
            self.faults.append(f"{turn}: it ended with {code} and did not show the answer")

    def _check_files(self) -> None:
        for turn, name, text in (("write", "new.txt", "43 tiles"), ("run", "size.txt", str(len(NOTE)))):
            path = self.folder / "work" / name
            if turn not in self.program.cannot and not (path.exists() and path.read_text().strip() == text):
                self.faults.append(f"{name} was not written")

    def _records(self) -> list[dict[str, Any]]:
        """The requests so far, in their order."""
        return [json.loads(path.read_text()) for path in sorted((self.folder / "records").glob("*.json"))]


def wait_for(condition: Callable[[], Any], what: str) -> None:
    """Wait until a condition holds. Raises TimeoutError."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {SECONDS:.0f} s for {what}")
        time.sleep(0.1)


def _is_ready(process: subprocess.Popen[bytes], client: httpx.Client) -> bool:
    if process.poll() is not None:
        raise Fault(f"the server ended with {process.returncode}")
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def _is_decoding(client: httpx.Client) -> bool:
    """Whether some tokens of an answer have come."""
    slots = client.get("/slots").json()
    busy = [slot for slot in slots if slot["is_processing"]]
    return any(token["n_decoded"] > 100 for slot in busy for token in slot["next_token"])


def _has_seen(client: httpx.Client) -> bool:
    """Whether the tower has computed an image."""
    counts = re.findall(r"^tiles_images_total ([0-9.]+)$", client.get("/metrics").text, re.MULTILINE)
    return any(map(float, counts))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and all that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)


@contextmanager
def _drawing() -> Iterator[Path]:
    """Draw a picture into a file. Its path is short: of those in the session's folders so small a model copies few."""
    path = Path("/tmp/red.png")
    try:
        with path.open("xb") as file:
            file.write(base64.b64decode(shapes(DRAWN)))
    except FileExistsError:
        raise Fault(f"{path} is somebody's") from None
    try:
        yield path
    finally:
        path.unlink()


@contextmanager
def closed_door(hosts: set[str]) -> Iterator[str]:
    """Be the proxy to the world, which lets nobody through and notes where they wanted to go."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_refuse, args=(listener, hosts), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _refuse(listener: socket.socket, hosts: set[str]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(5)
            try:
                words = connection.recv(4096).decode("latin-1").split()
                hosts.add(words[1] if len(words) > 1 else "?")
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            except OSError:
                continue
