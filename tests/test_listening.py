"""Where a server listens: several addresses, unix sockets, TLS, and sockets that were open before it."""

import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access import Access
from app.addresses import is_local, listen_address, socket_path
from app.commands.server_client import NoServer, ServerClient, ServerFailure
from app.settings import SettingError, Settings, read
from benchmarks.processes import free_port
from tests.conftest import KEY, Server, environment, running, wait_for

HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
ENDLESS = HELLO | {"max_tokens": 6000, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that is signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    out = ("-out", str(files[0]), "-keyout", str(files[1]))
    subprocess.run(["openssl", "req", "-x509", *curve, *names, *out], check=True, capture_output=True)
    return files


@pytest.fixture(scope="module")
def everywhere(home: Path) -> Iterator[Server]:
    """A server on three addresses, with a key."""
    hosts = ("--host", "127.0.0.1,::1", "--host", f"unix:{home / 'a folder' / 'tiles.sock'}")
    with running(home, "--demo", "--api-key", KEY, *hosts) as server:
        yield server
        assert server.errors() == []


def addresses(server: Server) -> list[str]:
    lines = [line.split() for line in server.log.splitlines()]
    return [line[-1] if "unix:" not in line[1] else " ".join(line[1:]) for line in lines if line[:1] == ["API"]]


def connect(address: str, key: str | None = KEY) -> ServerClient:
    return ServerClient(address, key)


@pytest.mark.slow
def test_every_address_answers_alike_and_by_the_same_rules(everywhere: Server, home: Path) -> None:
    path = home / "a folder" / "tiles.sock"
    shown = addresses(everywhere)
    assert shown == [f"{everywhere.url}/v1", f"{everywhere.url.replace('127.0.0.1', '[::1]')}/v1", f"unix:{path}"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    answers = [connect(address).call("POST", "/v1/chat/completions", HELLO)["choices"] for address in shown]
    assert answers[0] == answers[1] == answers[2]
    for address in shown:
        client = connect(address)
        with closing(client.open()) as connection, pytest.raises(ServerFailure, match="does not answer to that Host"):
            client.request(connection, "GET", "/v1/models", headers={"Host": "evil.example"})
        with closing(client.open()) as connection, pytest.raises(ServerFailure, match="origin"):
            client.request(connection, "GET", "/v1/models", headers={"Origin": "https://evil.example"})
        with pytest.raises(ServerFailure, match="give --api-key"):
            connect(address, None).get("/v1/models")


@pytest.mark.slow
def test_commands_find_a_server_by_its_socket(everywhere: Server, home: Path) -> None:
    path = home / "a folder" / "tiles.sock"
    key = {"TILES_API_KEY": KEY}
    default = key | {"TILES_HOST": f"unix:{path}"}
    assert "loaded" in command(home, "ps", env=default).stdout
    assert "loaded" in command(home, "ps", "--url", f"unix:{path}", env=key).stdout
    assert "tokens/s" in command(home, "chat", env=default).stdout
    assert f"a Tiles server runs on unix:{path}" in command(home, "doctor", "--json", env=default).stdout
    agent = command(home, "launch", "--print", "claude", env=default)
    assert agent.returncode == 1 and "give the server a --host with a port, too" in agent.stderr


def command(home: Path, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "app", *words]
    return subprocess.run(program, env=environment(home, **env), capture_output=True, text=True, input="Hello\n")


@pytest.mark.slow
def test_a_socket_is_taken_from_a_dead_server_and_from_no_other(everywhere: Server, tiny: Path, home: Path) -> None:
    busy, file, left = home / "a folder" / "tiles.sock", home / "file.sock", home / "left.sock"
    file.write_text("mine")
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(left))
    for path, reason in ((busy, "a server listens on it"), (file, "there is a file that is no socket")):
        done = command(home, "serve", "--demo", "--host", str(path), env={})
        assert (done.returncode, done.stderr) == (2, f"tiles-server: cannot listen on unix:{path}: {reason}\n")
    assert file.read_text() == "mine"
    with running(home, "--model", str(tiny), "--host", f"127.0.0.1,{left}") as server:
        assert connect(f"unix:{left}", None).get("/ping") == {"message": "pong"}
        assert server.stop() == 0
    assert not left.exists()


@pytest.mark.slow
def test_a_client_of_a_unix_socket_that_hangs_up_ends_its_answer(everywhere: Server, home: Path) -> None:
    client = connect(f"unix:{home / 'a folder' / 'tiles.sock'}")
    with closing(client.open()) as connection:
        client.request(connection, "POST", "/v1/chat/completions", json.dumps(ENDLESS).encode()).readline()
    wait_for(lambda: client.get("/v1/activity")["running"] == 0, what="the end of the answer")
    line = everywhere.logged("request")[-1]
    assert "finish" not in line and line["completion_tokens"] < ENDLESS["max_tokens"]


def test_addresses_are_spelled_in_one_way() -> None:
    assert listen_address("unix:///run/a b.x") == listen_address("unix:/run/a b.x") == "unix:/run/a b.x"
    assert listen_address("/run/t.sock") == "unix:/run/t.sock"
    assert listen_address("unix:~/t") == f"unix:{Path('~/t').expanduser()}"
    assert listen_address("0.0.0.0") == "0.0.0.0"
    assert read({"host": ("::1,/t.sock", "unix:/u")}, {}).host == ("::1", "unix:/t.sock", "unix:/u")
    assert read({}, {}).host == ("127.0.0.1",)
    for text in ("unix:", "unix://"):
        with pytest.raises(SettingError, match=r"--host: .* give a path"):
            read({"host": (text,)}, {})


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_a_path_stays_the_path_that_it_is(name: str) -> None:
    path = Path("/run") / name.strip("/") / "x"
    address = listen_address(f"unix:{path}")
    assert socket_path(address) == path
    assert is_local(address) and listen_address(address) == address


hosts = st.lists(
    st.sampled_from(["127.0.0.1", "::1", "localhost", "unix:/t", "0.0.0.0", "::", "192.168.1.5", "tiles.example"]),
    min_size=1,
    unique=True,
).map(tuple)


@given(hosts)
def test_one_address_beyond_loopback_is_enough_to_need_a_key(hosts: tuple[str, ...]) -> None:
    settings = Settings(host=hosts)
    beyond = bool(set(hosts) & {"0.0.0.0", "::", "192.168.1.5", "tiles.example"})
    assert settings.beyond_loopback == beyond
    Settings(host=hosts, api_key=("k",)).check()
    if not beyond:
        settings.check()
        return
    with pytest.raises(SettingError, match="lets other machines in"):
        settings.check()
    Access(Settings(host=hosts, insecure=True)).check("GET", "/v1/models", {"host": "192.168.1.5"})


def test_keys_come_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f" one-key \n\nname:{KEY}\n")
    assert read({"api_key_file": str(path)}, {"TILES_API_KEY": "first"}).api_key == ("first", "one-key", f"name:{KEY}")
    for content in ("", "\n", "se\x00cret"):
        path.write_text(content)
        with pytest.raises(SettingError, match="--api-key-file: ") as refused:
            read({"api_key_file": str(path)}, {})
        assert "cret" not in str(refused.value)
    with pytest.raises(SettingError, match="cannot be read"):
        read({"api_key_file": str(tmp_path / "no")}, {})


@pytest.mark.slow
def test_https_on_every_route_streams_and_refusals(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    flags = ("--demo", "--ssl-cert-file", str(cert), "--tls-key", str(key), "--max-body", "64K")
    trusted = ssl.create_default_context(cafile=str(cert))
    with serving(tmp_path, *flags) as (url, log), httpx.Client(base_url=url, verify=trusted, timeout=60) as client:
        assert url.startswith("https://127.0.0.1:")
        assert client.get("/ping").json() == {"message": "pong"}
        assert client.get("/ping", headers={"Host": "evil.example"}).status_code == 403
        assert client.get("/ping", headers={"Origin": url}).headers["access-control-allow-origin"] == url
        streamed = client.post("/v1/chat/completions", json=HELLO | {"stream": True})
        assert streamed.text.endswith("data: [DONE]\n\n")
        assert client.post("/v1/chat/completions", content=b"[" * 2**17).status_code == 413
        own = ServerClient(url, None, cert)
        assert own.get("/ping") == {"message": "pong"}
        with pytest.raises(ServerFailure, match="certificate"):
            ServerClient(url).get("/ping")
        with client.stream("POST", "/v1/chat/completions", json=ENDLESS) as begun:
            next(begun.iter_raw())
        wait_for(lambda: own.get("/v1/activity")["running"] == 0, what="the end of the answer")
        assert '"finish"' not in [line for line in log.read_text().splitlines() if "/chat/" in line][-1]
        env = {"TILES_TLS_CERT": str(cert), "TILES_TLS_KEY": str(key), "TILES_PORT": url.rpartition(":")[2]}
        assert "loaded" in command(tmp_path, "ps", env=env).stdout
        assert "Traceback" not in log.read_text() and '"level": "error"' not in log.read_text()


@contextmanager
def serving(
    home: Path, *flags: str, program: Sequence[str] = (sys.executable, "-m", "app", "serve"), **options: object
) -> Iterator[tuple[str, Path]]:
    """Run a server, and give the first address that it names, and its log."""
    path = home / "server.log"
    with path.open("w") as log:
        words = [*program, "--port", "0", "--log-format", "json", *flags]
        process = subprocess.Popen(words, stderr=log, env=environment(home), **options)  # type: ignore[call-overload]
    try:
        address = wait_for(lambda: re.search(r"^API +(\S+?)(/v1)?$", path.read_text(), re.MULTILINE), what="an address")
        wait_for(lambda: "model loaded" in path.read_text(), what="the model")
        yield address[1], path
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize("broken", ["no", "other", "password", "half"])
def test_a_certificate_that_cannot_be_used_is_one_line(
    broken: str, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    cert, _ = certificate
    other = tmp_path / "other.pem"
    if broken != "no":
        form = ("-aes256", "-passout", "pass:secret") if broken == "password" else ()
        subprocess.run(["openssl", "genrsa", *form, "-out", str(other), "2048"], check=True, capture_output=True)
    settings = Settings(tls_cert=cert, tls_key=None if broken == "half" else other)
    with pytest.raises(SettingError, match="--tls-cert") as refused:
        settings.check()
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_an_open_socket_is_taken_and_its_address_judged(tiny: Path, tmp_path: Path) -> None:
    """What a shell or a manager of services opens, beyond loopback too."""
    with closing(socket.socket()) as listener, closing(socket.socket()) as beyond:
        listener.bind(("127.0.0.1", 0))
        beyond.bind(("0.0.0.0", 0))
        number, port = listener.fileno(), listener.getsockname()[1]
        flags = ("--model", str(tiny), "--fd", str(number), "--host", "192.0.2.1")
        with serving(tmp_path, *flags, pass_fds=(number,)) as (url, _):
            assert url == f"http://127.0.0.1:{port}"
            assert httpx.get(f"{url}/ping").json() == {"message": "pong"}
        program = [sys.executable, "-m", "app", "serve", "--demo", "--fd", str(beyond.fileno())]
        done = subprocess.run(program, pass_fds=(beyond.fileno(),), env=environment(tmp_path), capture_output=True)
        assert done.returncode == 2 and b"lets other machines in" in done.stderr


@pytest.mark.parametrize("number, reason", [("1", "is no socket"), ("900", "cannot be used"), ("launchd:x", "launchd")])
def test_what_is_no_open_socket_is_one_line(number: str, reason: str, tmp_path: Path) -> None:
    done = command(tmp_path, "serve", "--demo", "--fd", number, env={})
    assert done.returncode == 2 and reason in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="there is no systemd-socket-activate")
def test_systemd_hands_its_sockets_over(tmp_path: Path) -> None:
    port, path = free_port(), tmp_path / "handed.sock"
    env = (f"HOME={tmp_path}", "HF_HUB_OFFLINE=1")
    listen = ("-l", f"127.0.0.1:{port}", "-l", str(path), *(word for one in env for word in ("-E", one)))
    program = ("systemd-socket-activate", *listen, sys.executable, "-m", "app", "serve", "--demo")
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(first_answer, port)  # systemd starts the server once somebody asks
        with serving(tmp_path, program=program) as (url, log):
            assert url == f"http://127.0.0.1:{port}"
            assert f"API   unix:{path}" in log.read_text()
            assert first.result() == {"message": "pong"}
            assert connect(f"unix:{path}", None).get("/ping") == {"message": "pong"}
    assert path.exists()  # for the next one


def first_answer(port: int) -> Any:
    client = connect(f"http://127.0.0.1:{port}", None)
    while True:
        with suppress(NoServer):
            return client.get("/ping")
