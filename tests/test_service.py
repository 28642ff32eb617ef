"""The server as a service: what is written for systemd and launchd is what runs, and nothing of others is touched."""

import os
import plistlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.commands import service_job
from app.commands.setting_options import setting_options
from app.services.supervisors import CannotSupervise, Job
from app.services.supervisors.launchd import Launchd
from app.services.supervisors.systemd import UNIT, Systemd
from app.settings import SettingError, read
from benchmarks.processes import free_port
from tests.conftest import environment, wait_for

KEY = "a-key-of-the-tests"
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="there is no systemd-analyze")


def has_manager() -> bool:
    try:
        return subprocess.run(["systemctl", "--user", "show-environment"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


# All that an argument can have; a unit is text, as Unicode has it.
letters = st.characters(exclude_characters="\0", exclude_categories=["Cs", "Cn"])
words = st.text(st.one_of(letters, st.sampled_from("\"'\\%$ ;\n\t\x01#{}`=")), max_size=12)
names = st.text(st.sampled_from(" '\"%$\\äx;#"), min_size=1, max_size=8)


def verify(unit: str, folder: Path) -> str:
    """What systemd itself says of a unit, with all that it has read from it."""
    path = folder / UNIT
    path.write_text(unit)
    (folder / "run").mkdir(exist_ok=True)
    env = {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder / "run"), "SYSTEMD_LOG_LEVEL": "debug"}
    command = [str(ANALYZE), "--user", "verify", str(path)]
    done = subprocess.run(command, capture_output=True, env=env)
    output = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0, output[-2000:]
    assert f"{path}:" not in output, output  # each objection begins so, with its line
    return output


def split(line: str) -> list[str]:
    """Undo how systemd shows the words of a command."""
    simple = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}

    def letter(match: re.Match[str]) -> str:
        text = match[1]
        if re.fullmatch(r"[0-7]{3}", text):
            return chr(int(text, 8))
        return chr(int(text[1:], 16)) if len(text) == 3 else simple.get(text, text)

    parts = re.findall(r'"((?:[^"\\]|\\.)*)"|([^ ]+)', line, re.DOTALL)
    return [re.sub(r"\\([0-7]{3}|x[0-9a-f]{2}|.)", letter, quoted or bare, flags=re.DOTALL) for quoted, bare in parts]


@needs_systemd
@settings(max_examples=30)
@given(st.lists(words, max_size=4), names)
def test_systemd_reads_the_same_arguments(
    tmp_path_factory: pytest.TempPathFactory, arguments: list[str], name: str
) -> None:
    folder = tmp_path_factory.mktemp("unit")
    program = folder / f"x{name}"
    program.symlink_to("/bin/true")
    shown = verify(Systemd().describe(Job((str(program), *arguments))), folder)
    line = re.search(r"-> ExecStart:\n\t\t\tCommand Line: (.*?)\n\t\t-> ExecReload:", shown, re.DOTALL)
    assert line is not None, shown
    read_back = split(line[1])
    assert read_back[-1 - len(arguments) :] == [str(program), *arguments]
    assert read_back[: -1 - len(arguments)] in ([], ["/bin/sh", "-c", 'exec "$0" "$@"'])


@needs_systemd
@settings(max_examples=30)
@given(
    st.text(
        st.one_of(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cn", "Cc"]), st.sampled_from('"%$')),
        max_size=20,
    )
)
def test_systemd_reads_the_same_variables(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    folder = tmp_path_factory.mktemp("unit")
    shown = verify(Systemd().describe(Job(("/bin/true",), {"TILES_X": value})), folder)
    assert f"\t\tEnvironment: TILES_X={value}\n" in shown


@given(st.lists(words, max_size=4), words)
def test_launchd_reads_the_same_arguments(arguments: list[str], value: str) -> None:
    job = Job(("/a b/tiles-server", *arguments), {"TILES_X": value}, Path("/l"))
    try:
        text = Launchd().describe(job)
    except CannotSupervise:
        assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]", "".join([*arguments, value]))
        return
    facts = plistlib.loads(text.encode())
    assert facts["ProgramArguments"] == list(job.arguments)
    assert facts["EnvironmentVariables"] == {"TILES_X": value}
    assert Launchd().mark in text
    assert facts["RunAtLoad"] is True and facts["KeepAlive"] == {"SuccessfulExit": False}


def as_serve_reads(arguments: tuple[str, ...]) -> dict[str, Any]:
    """The flags that the command line makes of the arguments of a job."""

    @click.command()
    @setting_options
    def command(**flags: Any) -> dict[str, Any]:
        return flags

    start = arguments.index("serve")
    result = command.main(list(arguments[start + 1 :]), standalone_mode=False)
    assert isinstance(result, dict)
    return result


FLAGS: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["a b/m", "org/model", "-odd"]),
    "host": st.sampled_from([("127.0.0.1", "::1"), ("unix:a b.sock",), ("127.0.0.1,unix:/t",)]),
    "port": st.sampled_from(["1", "6970"]),
    "lora": st.sampled_from([("l 1:0.5",), ("l 1", "l2:2"), ("l 1,l2",)]),
    "store": st.sampled_from(["on", "off"]),
    "insecure": st.just(True),
    "max_memory": st.sampled_from(["4G", "512M"]),
    "prompt_lookup": st.sampled_from(["auto", "0", "4"]),
    "kv_bits": st.sampled_from(["8", "8,4"]),
    "ui_settings": st.just("ui %i.json"),
    "data_dir": st.just("data 'x'"),
    "allow_origin": st.just(("https://a.example,vscode-webview://*",)),
}


@given(st.fixed_dictionaries({}, optional=FLAGS), st.fixed_dictionaries({}, optional=FLAGS), st.booleans())
def test_a_service_has_the_settings_of_who_installs_it(
    tmp_path_factory: pytest.TempPathFactory, flags: dict[str, Any], variables: dict[str, Any], has_key: bool
) -> None:
    """From another folder, and without the variables that were set."""
    here, elsewhere = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("elsewhere")
    for name in ("a b/m", "l 1", "l2"):
        (here / name).mkdir(parents=True)
    (here / "ui %i.json").write_text("{}")
    environ = {
        f"TILES_{name.upper()}": ",".join(value) if isinstance(value, tuple) else "1" if value is True else value
        for name, value in variables.items()
    }
    environ |= {"HOME": str(here), "TILES_SESSION_FILE": str(here / "s.json"), "OTHER": "x"}
    environ |= {"TILES_API_KEY": f"{KEY},name:{KEY}2"} if has_key else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(here))
        patch.chdir(here)
        plan = service_job.plan(flags, environ)
        expected = read(flags, environ)
        plan.write_keys()
        patch.chdir(elsewhere)
        words = as_serve_reads(plan.job.arguments)
        again = read(words, plan.job.environment)
        assert "OTHER" not in plan.job.environment
        assert KEY not in " ".join([*plan.job.arguments, *plan.job.environment.values()])
        keys = expected.data_dir / "service" / "api-keys"
        assert not has_key or keys.stat().st_mode & 0o777 == 0o600
        assert not has_key or again.api_key_file == keys
    same = {name: getattr(expected, name) for name in ("api_key", *FLAGS, "session_file")}
    same["lora"] = tuple(str(here / text) for text in expected.lora)
    same["model"] = str(here / "a b/m") if expected.model == "a b/m" else expected.model
    assert {name: getattr(again, name) for name in same} == same


def run(home: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", "service", *words]
    return subprocess.run(command, env=environment(home, **env), capture_output=True, text=True)


@needs_systemd
@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
def test_the_unit_that_is_shown_is_a_right_one_without_the_key(tmp_path: Path) -> None:
    shown = run(tmp_path, "install", "--print", "--demo", "--port", "7000", TILES_API_KEY=KEY, HF_HOME="/a b")
    assert shown.returncode == 0, shown.stderr
    verify(shown.stdout, tmp_path)
    assert '"serve" "--api-key-file" ' in shown.stdout and '"--demo" "--port" "7000"' in shown.stdout
    assert 'Environment="HF_HOME=/a b"' in shown.stdout
    assert KEY not in shown.stdout
    assert not (tmp_path / ".config").exists() and not (tmp_path / ".tiles").exists()


def test_wrong_settings_install_nothing(tmp_path: Path) -> None:
    for flags, reason in (
        (["--port", "x"], "--port"),
        (["--host", "0.0.0.0"], "lets other machines in"),
        (["--fd", "3"], "supervisor"),
    ):
        done = run(tmp_path, "install", "--demo", *flags)
        assert done.returncode == 2 and reason in done.stderr
    with pytest.raises(SettingError, match="--api-key-file"):
        service_job.plan({"api_key_file": str(tmp_path / "no")}, {})


@pytest.mark.skipif(sys.platform != "linux", reason="the path is systemd's")
def test_a_file_of_somebody_else_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / ".config" / "systemd" / "user" / UNIT
    path.parent.mkdir(parents=True)
    for make in (lambda: path.write_text("[Unit]\nDescription=mine\n"), lambda: path.symlink_to("/dev/null")):
        make()
        before = path.read_bytes()
        for words in (["install", "--demo"], ["uninstall"], ["status"]):
            done = run(tmp_path, *words, TILES_API_KEY=KEY)
            assert done.returncode == 1 and f"{path} is not of tiles-server" in done.stderr
        assert path.read_bytes() == before
        path.unlink()
    assert not (tmp_path / ".tiles").exists()


@pytest.mark.skipif(has_manager() or sys.platform != "linux", reason="a user manager of systemd runs here")
def test_without_a_manager_nothing_is_written_and_one_line_says_why(tmp_path: Path) -> None:
    done = run(tmp_path, "install", "--demo", TILES_API_KEY=KEY)
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.count("\n") == 1
    assert "no user manager of systemd runs here" in done.stderr or "there is no systemctl" in done.stderr
    assert not (tmp_path / ".config").exists() and not (tmp_path / ".tiles").exists()
    assert run(tmp_path, "status").returncode == 1
    assert run(tmp_path, "uninstall").stdout == "There is no service.\n"


# A user manager runs only where the machine was booted with systemd; in its own /run this one was.
BOOTED = 'mount -t tmpfs none /run && mkdir -p /run/systemd/system && exec "$0" --user'
SYSTEMD = next((path for path in ("/usr/lib/systemd/systemd", "/lib/systemd/systemd") if Path(path).exists()), None)


class Login:
    """A user of this test's own, whose manager of systemd comes and goes."""

    def __init__(self, home: Path) -> None:
        self.env = environment(home, XDG_RUNTIME_DIR=str(home / "run"))
        (home / "run").mkdir(mode=0o700)

    @contextmanager
    def session(self) -> Iterator[None]:
        command = ["unshare", "--mount", "sh", "-c", BOOTED, str(SYSTEMD)]
        manager = subprocess.Popen(command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: manager.poll() is not None or not self.systemctl("show-environment").returncode)
            if manager.poll() is not None:
                pytest.skip("no user manager of systemd can be had here")
            yield
        finally:
            self.systemctl("exit")
            manager.wait(60)

    def systemctl(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["systemctl", "--user", *words], env=self.env, capture_output=True, text=True)

    def service(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app", "service", *words]
        return subprocess.run(command, env=self.env, capture_output=True, text=True)


@pytest.fixture
def login() -> Iterator[Login]:
    if SYSTEMD is None or shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("a user manager of systemd is started by root")
    with tempfile.TemporaryDirectory(prefix="tiles-") as home:  # a socket's path is short
        yield Login(Path(home))


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.slow
def test_systemd_keeps_it_running_over_kills_and_logins_until_it_is_removed(login: Login) -> None:
    port = free_port()
    with login.session():
        done = login.service("install", "--demo", "--port", str(port))
        assert done.returncode == 0, done.stderr
        wait_for(lambda: answers(port), 60)
        before = login.systemctl("show", UNIT, "--property=MainPID", "--value").stdout.strip()
        assert login.service("status").stdout.startswith(f"active (running), process {before}\n")
        os.kill(int(before), signal.SIGKILL)
        wait_for(
            lambda: login.systemctl("show", UNIT, "--property=MainPID", "--value").stdout.strip() not in ("0", before)
        )
        wait_for(lambda: answers(port), 60)
    assert not answers(port)
    with login.session():
        wait_for(lambda: answers(port), 60)
        assert login.service("uninstall").stdout == "The service is removed.\n"
        assert not answers(port)
        assert login.service("status").returncode == 1
