"""Attempts of the agent's code to get out of its folder. After each, everything around the folder is as it was."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.memory.conftest import SECRET, Place, Runner

pytestmark = pytest.mark.slow

# {out} is the absolute path of the folder outside.
UPWARDS = [
    "create_file('../outside/secret.md', 'owned')",
    "create_file('../new.md', 'owned')",
    "create_file('people/../../new.md', 'owned')",
    "create_file('./././../new.md', 'owned')",
    "create_dir('../new')",
    "create_dir('a/../../new')",
    "x = delete_file('../outside/secret.md')",
    "x = update_file('../outside/secret.md', 'words', 'owned')",
    "x = read_file('../outside/secret.md')",
    "x = go_to_link('[[../outside/secret]]')",
    "x = go_to_link('[[people/../../outside/secret.md|a note]]')",
    "x = [check_if_file_exists('../outside/secret.md'), check_if_dir_exists('..')]\nassert x == [False, False]",
    "x = get_size('../outside')",
    "create_file('..', 'owned')",
    "x = read_file('people/..')",
]
ABSOLUTE = [
    "create_file('{out}/new.md', 'owned')",
    "x = read_file('{out}/secret.md')",
    "x = update_file('{out}/secret.md', 'words', 'owned')",
    "x = delete_file('{out}/secret.md')",
    "create_dir('{out}/new')",
    "x = go_to_link('{out}/secret.md')",
    "x = read_file('//{out}/secret.md')",
    "x = read_file('file://{out}/secret.md')",
    "x = read_file('~/.ssh/id_rsa')\ny = read_file('~root/.bashrc')",
    "x = get_size('{out}')",
    "x = read_file('/proc/self/environ')",
    "x = read_file('/dev/stdin')",
]
SYMLINKS = [
    "x = read_file('link.md')",
    "x = go_to_link('[[link]]')",
    "create_file('link.md', 'owned')",
    "x = update_file('link.md', 'words', 'owned')",
    "x = delete_file('link.md')",
    "x = read_file('folder-link/secret.md')",
    "create_file('folder-link/new.md', 'owned')",
    "create_file('folder-link/secret.md', 'owned')",
    "x = create_dir('folder-link/new')",
    "x = delete_file('folder-link/secret.md')",
    "x = get_size('folder-link')",
    "x = get_size('link.md')",
    "x = list_files()\nassert 'link' not in x",
    "create_file('dangling.md', 'owned')",
    "x = read_file('root-link{out}/secret.md')",
    "x = [check_if_file_exists('link.md'), check_if_dir_exists('folder-link')]\nassert x == [False, False]",
]
HARD_LINKS = [
    "x = read_file('hard.md')",
    "create_file('hard.md', 'owned')",
    "x = update_file('hard.md', 'words', 'owned')",
    "x = delete_file('hard.md')",
    "x = go_to_link('[[hard]]')",
    "x = get_size('hard.md')",
    "x = list_files()\nassert 'hard' not in x",
]
NO_FILES = [
    "x = read_file('pipe')",
    "create_file('pipe', 'owned')",
    "x = update_file('pipe', 'a', 'b')",
    "x = delete_file('socket')",
    "x = read_file('socket')",
    "create_file('socket', 'owned')",
]
UNICODE = [
    "create_file('\uff0e\uff0e/new.md', 'owned')",
    "create_file('\uff0e\uff0e\uff0fnew.md', 'owned')",
    "create_file('\u2025/new.md', 'owned')",
    "create_file('\u2024\u2024/new.md', 'owned')",
    "create_file('.\u200b./new.md', 'owned')",
    "create_file('..\u2215new.md', 'owned')",
    "create_file('..\\\\\\\\new.md', 'owned')",
    "create_file('%2e%2e/new.md', 'owned')",
    "create_file('..\\x00/new.md', 'owned')",
    "x = read_file('user.md\\x00/../../outside/secret.md')",
    "create_file('\\ud800/../new.md', 'owned')",
    "create_file('\u202e../new.md', 'owned')",
    "create_file('.\u0000./new.md', 'owned')",
]
LONG = [
    "create_file('../' * 200 + 'new.md', 'owned')",
    "create_file('a' * 255, 'owned')",
    "create_file('a' * 100_000, 'owned')",
    "create_file('a/' * 500 + 'new.md', 'owned')",
    "create_file('é' * 200, 'owned')",
    "create_file('a/' * 17 + '../' * 18 + 'new.md', 'owned')",
    "x = read_file('./' * 400 + '../outside/secret.md')",
]
HIDDEN = [
    "create_file('.tiles-backup/user.md.bak', 'owned')",
    "x = read_file('.tiles-backup/user.md.bak')",
    "create_file('.TILES-BACKUP/x', 'owned')",
    "create_file('.git/hooks/post-checkout', 'owned')",
    "x = read_file('.env')",
    "create_dir('.obsidian/plugins')",
    "x = delete_file('.git/config')",
    "x = list_files()\nassert 'tiles-backup' not in x and '.env' not in x",
]
DUNDERS = [
    "x = ().__class__.__bases__[0].__subclasses__()",
    "x = create_file.__globals__",
    "x = create_file.__self__._root",
    "x = create_file.__code__.co_consts",
    "x = getattr(create_file, '__globals__')",
    "x = '{0.__globals__}'.format(create_file)",
    "x = f'{create_file.__init__.__globals__}'",
    "x = (lambda: 0).__globals__['__builtins__']",
    "try:\n    1 / 0\nexcept Exception as error:\n    x = error.__traceback__.tb_frame.f_back",
    "x = type(create_file).__mro__[1].__subclasses__()",
    "class A:\n    def __init__(self):\n        self.x = self.__init__.__globals__\nx = A()",
    "x = [c for c in object.__subclasses__() if c.__name__ == 'Popen']",
]
IMPORTS = [
    "import os\nx = os.environ['TILES_TEST_SECRET']",
    "import os\nx = dict(os.environ)",
    "import os\nx = os.getenv('TILES_TEST_SECRET')",
    "import os\nos.system('touch {out}/new')",
    "import os\nx = os.listdir('{out}')",
    "import os\nos.remove('{out}/secret.md')",
    "import os\nos.fork()",
    "import os\nx = os.open('{out}/secret.md', 0)",
    "import subprocess\nsubprocess.run(['touch', '{out}/new'])",
    "import ctypes\nctypes.CDLL(None).system(b'touch {out}/new')",
    "import shutil\nshutil.rmtree('{out}')",
    "import sys\nx = sys.modules['os']",
    "import importlib\nx = importlib.import_module('os')",
    "x = __import__('os').system('touch {out}/new')",
    "x = eval(\"__import__('os').getcwd()\")",
    "exec('import subprocess')",
    "x = open('{out}/secret.md').read()",
    "open('{out}/secret.md', 'w').write('owned')",
    "from pathlib import Path\nx = Path('{out}/secret.md').read_text()",
    "from pathlib import Path\nPath('{out}/new.md').write_text('owned')",
    "from pathlib import Path\nx = list(Path('..').iterdir())",
    "import pickle\npickle.loads(b\"cos\\nsystem\\n(S'touch {out}/new'\\ntR.\")",
    "import multiprocessing\nmultiprocessing.Process(target=print).start()",
    "import signal\nsignal.raise_signal(9)",
]
NETWORK = [
    "import socket\nsocket.create_connection(('127.0.0.1', {port}))",
    "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}')",
    "import http.client\nhttp.client.HTTPConnection('127.0.0.1', {port}).request('GET', '/')",
    "import asyncio\nawait asyncio.open_connection('127.0.0.1', {port})",
    "import asyncio\nawait asyncio.create_subprocess_shell('touch {out}/new')",
    "import ssl\nssl.get_server_certificate(('127.0.0.1', {port}))",
]
BOMBS = [
    "create_file('a.md', 'x' * (2 ** 20 + 1))",
    "create_file('a.md', 'x' * 10 ** 9)",
    "for i in range(200):\n    create_file(f'a/{i}.md', 'x' * 2 ** 20)",
    "for i in range(100_000):\n    create_dir(f'd{i}')",
    "def f():\n    create_file('a.md', 'x')\n    return f()\nf()",
    "x = create_file([[0] * 1000] * 1000, 'x')",
    "x = []\nfor i in range(100000):\n    x = [x]\ncreate_file('a.md', x)",
]
CLASSES = {
    "upwards": UPWARDS,
    "absolute": ABSOLUTE,
    "symlinks": SYMLINKS,
    "hard links": HARD_LINKS,
    "no files": NO_FILES,
    "unicode": UNICODE,
    "long": LONG,
    "hidden": HIDDEN,
    "dunders": DUNDERS,
    "imports": IMPORTS,
    "network": NETWORK,
    "bombs": BOMBS,
}
ATTEMPTS = [
    pytest.param(attempt, id=f"{kind} {number}")
    for kind, attempts in CLASSES.items()
    for number, attempt in enumerate(attempts)
]


@pytest.fixture
def trapped(place: Place) -> Iterator[Place]:
    """A memory full of things that lead out, which a person could have put there."""
    memory, outside = place.memory, place.outside
    (memory / "user.md").write_text("# User\n")
    (memory / "people").mkdir()
    (memory / "link.md").symlink_to(outside / "secret.md")
    (memory / "folder-link").symlink_to(outside)
    (memory / "root-link").symlink_to("/")
    (memory / "dangling.md").symlink_to(outside / "new.md")
    (memory / "hard.md").hardlink_to(outside / "secret.md")
    (memory / ".env").write_text(SECRET)
    (memory / ".tiles-backup").mkdir()
    (memory / ".tiles-backup" / "user.md.bak").write_text(SECRET)
    (memory / ".git").mkdir()
    (memory / ".git" / "config").write_text(SECRET)
    os.mkfifo(memory / "pipe")
    before = Path.cwd()
    os.chdir(memory)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        os.chdir(before)
        yield place


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    """Somebody to call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def out_of(place: Place, message: str, before: Mapping[str, Any]) -> bool:
    """Whether something got out: the world around changed, or the secret is known."""
    return place.seen() != before or SECRET in message


def hidden(place: Place) -> dict[str, Any]:
    """What is in the memory and not for the agent, in `seen`'s words."""
    return {name: (place.memory / name).read_bytes() for name in (".env", ".git/config", ".tiles-backup/user.md.bak")}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_it_does_not_get_out(trapped: Place, runner: Runner, listener: socket.socket, attempt: str) -> None:
    code = filled(attempt, trapped, listener)
    before, kept, own = trapped.seen(), hidden(trapped), Path.cwd()
    notes = trapped.notes()
    outcome = runner.run(code, notes)
    notes.close()
    assert not out_of(trapped, outcome.message(), before)
    assert hidden(trapped) == kept
    assert not (trapped.memory / ".git" / "hooks").exists()
    assert str(trapped.around) in code or str(trapped.around) not in outcome.message()
    assert "AssertionError" not in (outcome.error or "")
    assert Path.cwd() == own
    with pytest.raises(BlockingIOError):
        listener.accept()


def filled(attempt: str, place: Place, listener: socket.socket) -> str:
    port = str(listener.getsockname()[1])
    return attempt.replace("{out}", str(place.outside)).replace("{port}", port)


def test_the_suite_is_as_large_as_it_says() -> None:
    assert len(ATTEMPTS) >= 100
    assert all(len(attempts) >= 5 for attempts in CLASSES.values())


class Trusting:
    """The functions as one would write them without a thought: the control of this suite."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory

    def call(self, name: str, args: Sequence[Any], _: Mapping[str, Any]) -> object:
        path = self._memory / args[0].strip("[]")
        match name:
            case "create_file":
                path.write_text(args[1])
            case "read_file" | "go_to_link":
                return path.read_text()
            case "update_file":
                path.write_text(path.read_text().replace(args[1], args[2], 1))
            case "delete_file":
                path.unlink()
            case "create_dir":
                path.mkdir()
        return True


@pytest.mark.parametrize(
    "attempt",
    [
        *(UPWARDS[0], UPWARDS[1], UPWARDS[4], UPWARDS[6], UPWARDS[8]),
        *(ABSOLUTE[0], ABSOLUTE[1], ABSOLUTE[2], ABSOLUTE[3]),
        *(SYMLINKS[0], SYMLINKS[2], SYMLINKS[5], SYMLINKS[6], SYMLINKS[8], SYMLINKS[13]),
        *(HARD_LINKS[0], HARD_LINKS[1], HARD_LINKS[3]),
        *(HIDDEN[1], HIDDEN[4]),
    ],
)
def test_the_suite_sees_what_gets_out(trapped: Place, runner: Runner, listener: socket.socket, attempt: str) -> None:
    before = trapped.seen()
    outcome = runner.run(filled(attempt, trapped, listener), Trusting(trapped.memory))
    assert out_of(trapped, outcome.message(), before), outcome


# A second process makes a name now this, now that, as fast as it can.
SWAP = """
import os, sys
name, other = sys.argv[1:]
while True:
    for step in (
        lambda: os.rename(name, name + "-own"),
        lambda: os.symlink(other, name),
        lambda: os.unlink(name),
        lambda: os.rename(name + "-own", name),
    ):
        try:
            step()
        except OSError:
            pass
"""


@contextmanager
def swapped(name: Path, other: Path) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-S", "-c", SWAP, str(name), str(other)])
    try:
        while not name.is_symlink():
            assert process.poll() is None
        yield
    finally:
        process.kill()
        process.wait(10)


RACES = [
    ("people", "create_file('people/new.md', 'owned')"),
    ("people", "create_file('people/secret.md', 'owned')"),
    ("people", "create_dir('people/new')"),
    ("people", "x += read_file('people/secret.md')"),
    ("people", "x += str(delete_file('people/secret.md'))"),
    ("people", "x += str(update_file('people/secret.md', 'words', 'owned'))"),
    ("user.md", "x += read_file('user.md')"),
    ("user.md", "create_file('user.md', 'owned')"),
]
AGAIN = """
x = ''
for i in range(300):
    try:
        {attempt}
    except Exception:
        pass
x = x[-3000:]
"""


def race(place: Place, name: str) -> Any:
    other = place.outside / "secret.md" if name == "user.md" else place.outside
    return swapped(place.memory / name, other)


@pytest.mark.parametrize(("name", "attempt"), RACES)
def test_it_does_not_get_out_by_a_race(trapped: Place, runner: Runner, name: str, attempt: str) -> None:
    before = trapped.seen()
    with race(trapped, name):
        notes = trapped.notes()
        message = runner.run(AGAIN.format(attempt=attempt), notes).message()
        notes.close()
    assert not out_of(trapped, message, before)


@pytest.mark.parametrize(("name", "attempt"), [RACES[0], RACES[3], RACES[7]])
def test_the_suite_sees_what_gets_out_by_a_race(trapped: Place, runner: Runner, name: str, attempt: str) -> None:
    before, deadline, got_out = trapped.seen(), time.monotonic() + 20, False
    with race(trapped, name):
        while not got_out and time.monotonic() < deadline:
            outcome = runner.run(AGAIN.format(attempt=attempt), Trusting(trapped.memory))
            got_out = out_of(trapped, outcome.message(), before)
    assert got_out
