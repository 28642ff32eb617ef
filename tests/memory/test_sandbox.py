"""Bad code, hungry code and ordinary code: each comes to an outcome, in time."""

import asyncio
import inspect

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.services.memory.notes import FUNCTIONS
from app.services.memory.sandbox import Sandbox
from tests.memory.conftest import Place, Runner

pytestmark = pytest.mark.slow


def ran(runner: Runner, place: Place, code: str) -> str:
    notes = place.notes()
    try:
        return runner.run(code, notes).message()
    finally:
        notes.close()


def test_the_limit_is_that_of_the_contract() -> None:
    assert inspect.signature(Sandbox).parameters["seconds"].default == 20.0


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("x = 1\ny = 'a'", "{'x': 1, 'y': 'a'}"),
        ("", "{}"),
        ("print('hello')", "{}"),
        (
            "done = create_file('user.md', '# User\\n')\nnote = read_file('user.md')",
            "{'done': True, 'note': '# User\\n'}",
        ),
        ("list = [1]\nstr = 'a'\nrepr = None\nlocals = 3", "{'list': [1], 'str': 'a', 'repr': None, 'locals': 3}"),
        (
            "x = (1,)\ny = {'a': {2.5: [True, None]}}\nz = b'q'",
            "{'x': (1,), 'y': {'a': {2.5: [True, None]}}, 'z': b'q'}",
        ),
        ("import re\nx = 1", "{'re': \"<module 're'>\", 'x': 1}"),
        ("a = []\na.append(a)", "{'a': [[...]]}"),
        ("x = 1\ny = x +", "({}, {SyntaxError: Expected an expression (line 2)})"),
        ("x = 1\nnote", "({'x': 1}, {NameError: name 'note' is not defined})"),
        ("x = 1 / 0", "({}, {ZeroDivisionError: division by zero})"),
        ("raise ValueError('no')", "({}, {ValueError: no})"),
        ("forget_everything()", "({}, {NameError: name 'forget_everything' is not defined})"),
        ("create_file('../x')", "({}, {PermissionError: paths do not lead upwards})"),
        ("create_file()", "({}, {TypeError: create_file() missing a required argument: 'file_path'})"),
        ("x = 10 ** 5000", "{'x': '<int that cannot be shown>'}"),
        ("x = 'é\\u200b\\U0001f600'", "{'x': 'é\\u200b😀'}"),
    ],
)
def test_an_outcome_says_what_the_code_left(runner: Runner, place: Place, code: str, body: str) -> None:
    assert ran(runner, place, code) == f"<result>\n{body}\n</result>"


@pytest.mark.parametrize(
    "code",
    [
        "x = [p for p in ['a', 'b'] if not check_if_file_exists(p)]",
        "def look(path):\n    return read_file(path)\nx = look('a.md')",
        "class Note:\n    def __init__(self, path):\n        self.text = read_file(path)\nx = Note('a.md').text",
        "try:\n    create_file('/a')\nexcept Exception as error:\n    x = str(error)\nfinally:\n    y = 1",
        "x = f\"{read_file('a.md')!r:>40}\"",
        "import json, re, datetime, math\nx = json.dumps({'day': datetime.date(2026, 1, 2).isoformat()})",
        "import re\nx = re.findall(r'\\[\\[(.+?)\\]\\]', '[[a]] [[b]]')",
        "from datetime import datetime\nx = len(datetime.now().isoformat())",
        "write = create_file\nx = write('b.md', content='x')",
        "from collections import defaultdict, Counter\nx = Counter('aab').most_common(1)",
        "x = 0\nfor i in range(20):\n    x += create_file(f'{i}.md', str(i))",
        "match [1, 2]:\n    case [a, b]:\n        x = a + b",
        "x = '\\n'.join(sorted(line.strip() for line in 'b\\na'.splitlines()))",
    ],
)
def test_what_models_write_works(runner: Runner, place: Place, code: str) -> None:
    outcome = ran(runner, place, code)
    assert "'x': " in outcome
    assert "Error: " not in outcome.replace("'Error: file", "").replace("Error: file a.md", "")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("def f():\n    yield 1", "NotImplementedError"),
        ("x = 1\ndel x", "NotImplementedError"),
        ("x = list(map(read_file, ['a']))", "NotImplementedError"),
        ("import string", "ModuleNotFoundError"),
        ("class E(Exception):\n    pass", "NotImplementedError"),
    ],
)
def test_what_the_interpreter_lacks_is_as_the_docs_say(runner: Runner, place: Place, code: str, error: str) -> None:
    assert f"{{{error}: " in ran(runner, place, code)


@pytest.mark.parametrize(
    "code",
    [
        "while True:\n    pass",
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass",
        "sum(range(10 ** 12))",
        "while True:\n    read_file('a.md')",
        "while True:\n    try:\n        create_file('../a.md')\n    except BaseException:\n        pass",
        "x = 'x' * 10 ** 10",
        "x = []\nwhile True:\n    x.append('x' * 10 ** 6 + str(len(x)))",
        "x = [0]\nwhile True:\n    x = x + x",
        "x = [0] * 10\nfor i in range(12):\n    x = [x] * 10",
        "x = 1 << (10 ** 9)",
        "x = 10 ** 10 ** 7",
        "x = f'{1:>2000000000}'",
        "def f():\n    return f()\nf()",
        "class A:\n    def __repr__(self):\n        return repr(self)\nx = A()",
        "class A:\n    def __repr__(self):\n        while True:\n            pass\nx = A()",
        "print('x' * 10 ** 7)",
        "raise ValueError('x' * 10 ** 7)",
        "x = '(' * 100000",
        "(" * 100_000 + ")" * 100_000,
        "x = " + "-" * 100_000 + "1",
        "x = 1\n" * 200_000,
        "import time\ntime.sleep(1000)",
        "import re\nx = re.match('(a+)+$', 'a' * 40 + 'b')",
        "x = 'x' * (10 * 2 ** 20)",
        "import json\njson.loads('[' * 100000)",
        "_tiles_shown = _tiles_names = None",
        "_tiles_names = lambda: {'a' * 10 ** 6: 'b' * 10 ** 6}",
        "_tiles_shown = lambda *a: [[[0] * 1000] * 1000] * 1000",
        "class A:\n    pass\na = A()\n_tiles_shown = lambda *a: (a, A())",
        "x = '\\ud800'",
    ],
)
def test_bad_code_is_an_outcome(runner: Runner, place: Place, code: str) -> None:
    message = ran(runner, place, code)
    assert message.startswith("<result>\n")
    assert len(message) < 10_000
    assert ran(runner, place, "x = 1") == "<result>\n{'x': 1}\n</result>"


LOST = "the worker exceeded its memory limit and was terminated; the variables are lost"


@pytest.mark.parametrize(
    "code",
    [
        "x = ('a ' * 10 ** 7).split()",
        "raise ValueError('x' * 50_000_000)",
        "raise KeyError({str(i): i for i in range(10 ** 6)})",
        "x = {**{str(i): i for i in range(10 ** 7)}}",
        "x = hex(1 << (4 * 10 ** 8))",
        "x = ','.join(['a' * 10 ** 6] * 10 ** 5)",
        "x = list(zip(range(10 ** 7), range(10 ** 7)))",
        "create_file('a.md', 'x' * 5 * 10 ** 7)",
        "try:\n    x = ('a ' * 10 ** 7).split()\nexcept BaseException:\n    x = 1\ny = 2",
        "class A:\n    pass\nx = [A() for i in range(10 ** 6)]",
    ],
)
def test_code_that_outgrows_the_memory_in_one_leap_is_told_so(place: Place, code: str) -> None:
    async def outcomes() -> list[str]:
        async def done(*_: object) -> bool:
            return True

        sandbox = Sandbox(FUNCTIONS, seconds=60)  # the machine may be busy: it is not about time
        try:
            return [(await sandbox.run(each, done)).message() for each in (f"kept = 1\n{code}", "x = 1")]
        finally:
            await sandbox.close()

    hungry, next_one = asyncio.run(outcomes())
    assert hungry == f"<result>\n({{}}, {{MemoryError: {LOST}}})\n</result>"
    assert next_one == "<result>\n{'x': 1}\n</result>"


SIZES = st.sampled_from([10, 10**3, 10**5, 10**6, 10**7, 10**8])
HUNGRY = st.sampled_from(
    [
        *("x = ['a'] * {0}", "x = 'ab' * {0}", "x = list(range({0}))", "x = [str(i) for i in range({0})]"),
        *("x = {{i: str(i) for i in range({0})}}", "x = 1 << {0}", "x = f'{{1:>{0}}}'", "x = ('a ' * {0}).split()"),
        *("for i in range({0}):\n    x = [x]", "x = {{'x': x, 'y': x}}", "x = [x] * {0}", "x = str(x) + repr(x)"),
        *("def f(n):\n    return [f(n - 1)] if n else x\nx = f({0})", "raise ValueError(x)", "assert not x, x"),
        *("import json\nx = json.dumps(x)", "import re\nx = re.findall('a?', str(x))", "x = sorted([x, x], key=str)"),
        *("create_file('a', x)", "x = create_file(x, x)", "print(x)", "x = (x, {{'a': (x,)}}, {{x}})", "x = x == [x]"),
        "try:\n    x = x * {0}\nexcept BaseException as error:\n    x = error",
    ]
)


@given(st.lists(st.tuples(HUNGRY, SIZES), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_hungry_code_does_is_an_outcome(runner: Runner, place: Place, parts: list[tuple[str, int]]) -> None:
    code = "\n".join(["x = 1", *(part.format(size) for part, size in parts)])
    message = ran(runner, place, code)
    assert message.startswith("<result>\n")
    assert "the interpreter failed" not in message
    assert len(message) < 10_000


def test_nothing_is_left_of_a_run(runner: Runner, place: Place) -> None:
    ran(runner, place, "x = 1\ndef leak():\n    return 2")
    assert ran(runner, place, "leak()").endswith("{NameError: name 'leak' is not defined})\n</result>")


def test_a_run_in_another_process_does_not_hold_the_event_loop(place: Place) -> None:
    async def both() -> int:
        sandbox = Sandbox(FUNCTIONS, seconds=1.0)

        async def never(*_: object) -> object:
            return None

        run = asyncio.ensure_future(sandbox.run("while True:\n    read_file('a')", never))
        turns = 0
        while not run.done():
            await asyncio.sleep(0)
            turns += 1
        await sandbox.close()
        assert "Error" in str((await run).error)
        return turns

    assert asyncio.run(both()) > 100, "a loop that is held for the second of the run has a handful"


def test_a_cancelled_run_leaves_no_process(place: Place) -> None:
    async def cancelled() -> list[psutil.Process]:
        sandbox, at_work = Sandbox(FUNCTIONS), asyncio.Event()

        async def begun(*_: object) -> object:
            at_work.set()
            return True

        before = set(psutil.Process().children(recursive=True))
        run = asyncio.ensure_future(sandbox.run("create_file('a')\nwhile True:\n    pass", begun))
        await at_work.wait()
        assert set(psutil.Process().children(recursive=True)) - before
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await sandbox.close()
        left = set(psutil.Process().children(recursive=True)) - before
        return psutil.wait_procs(left, timeout=20)[1]  # a killed process may take its time to go

    assert asyncio.run(cancelled()) == []


def test_an_interpreter_that_dies_is_an_outcome(place: Place) -> None:
    async def killed() -> str | None:
        sandbox = Sandbox(FUNCTIONS)

        async def kill(*_: object) -> object:
            for process in psutil.Process().children(recursive=True):
                if "monty" in process.name():
                    process.kill()
            return True

        first = await sandbox.run("create_file('a')\nx = 1", kill)
        again = await sandbox.run("x = 1", kill)
        await sandbox.close()
        assert again.message() == "<result>\n{'x': 1}\n</result>"
        return first.error

    assert asyncio.run(killed()) == "RuntimeError: the interpreter ended; the variables are lost"


def test_an_error_of_ours_is_not_told(runner: Runner, place: Place) -> None:
    class Broken:
        def call(self, *_: object) -> object:
            raise ZeroDivisionError("our insides")

    message = runner.run("read_file('a')", Broken()).message()
    assert message == "<result>\n({}, {RuntimeError: read_file failed})\n</result>"
