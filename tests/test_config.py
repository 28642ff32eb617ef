"""The configuration file: settings, tables of models, what is shown of it, and what SIGHUP does."""

import json
import os
import pty
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from app import config_file
from app.commands.config import config
from app.config_file import ConfigError
from app.services import bootstrap
from app.services.generation import LLAMA_SAMPLING, GenerationRequest, Sampling
from app.services.presets import Preset, Presets
from app.settings import SettingError, Settings, described, flag, read, read_with_sources
from tests import tiny_model
from tests.conftest import Server, environment, running, wait_for
from tests.refusals import error_of


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def write(data: Path, text: str) -> Path:
    path = data / "config.toml"
    path.write_text(text)
    return path


def test_flags_win_over_variables_and_these_over_the_file(data: Path) -> None:
    lists = 'allow_host = ["a.example", "b.example"]'
    path = write(data, f'port = 1\nmax_batch = 2\nstore = false\ncache_ram = "1G"\n{lists}')
    flags = {"data_dir": str(data), "port": "3"}
    settings, sources = read_with_sources(flags, {"TILES_PORT": "4", "TILES_MAX_BATCH": "5"})
    assert (settings.port, settings.max_batch, settings.store, settings.cache_ram) == (3, 5, False, 2**30)
    assert settings.allow_host == ("a.example", "b.example")
    assert {name: sources.get(name) for name in ("port", "max_batch", "store", "host", "data_dir")} == {
        "port": "--port",
        "max_batch": "TILES_MAX_BATCH",
        "store": str(path),
        "host": None,
        "data_dir": "--data-dir",
    }
    assert read({}, {"TILES_DATA_DIR": str(data)}).port == 1


def test_every_flag_can_stand_in_the_file_by_its_own_name(data: Path) -> None:
    values: dict[str, Any] = {"context_length": 1024, "open": True, "webui": "~/ui", "model": "org/name"}
    names = {name[2:].replace("-", "_") for item in described() if (name := flag(item))}
    assert values.keys() <= names
    write(data, "\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items()))
    settings = read({"data_dir": str(data)}, {})
    assert (settings.context_length, settings.open_browser, settings.model) == (1024, True, "org/name")
    assert settings.webui_dir == Path("~/ui").expanduser()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("port = ", "is no TOML"),
        ("prot = 1", "prot is no setting; port is one"),
        ('data_dir = "/tmp"', "data_dir is no setting"),
        ("port = 70000", "port: '70000': give a number from 0 to 65535"),
        ("port = [1]", "give a text, a number"),
        ('port = ["1", "2"]', "port: give one value"),
        ("max_batch = 1.5", "max_batch: '1.5': that is not a value for it"),
        ("host = 1979-05-27", "give a text"),
        ("[port]\na = 1", "give a text"),
        ("[model.x]\ntemprature = 1", "temprature is no key of a model"),
        ("[model.x]\ntemperature = 101", "temperature: give a number from 0.0 to 100.0"),
        ("[model.x]\ntemperature = nan", "temperature: give a number"),
        ("[model.x]\ntop_k = 1.5", "top_k: give a whole number"),
        ("[model.x]\ntop_k = true", "top_k: give no truth value"),
        ("[model.x]\npinned = 1", "pinned: give true or false"),
        ('[model.x]\nmodel = ""', "model: give the id"),
        ("[model.x]\nchat_template_kwargs = 1", "chat_template_kwargs: give a table"),
        ("[model]\nx = 1", "give a table"),
        ('[model.""]\npinned = true', "give a table"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(data: Path, text: str, words: str) -> None:
    path = write(data, text)
    with pytest.raises(SettingError) as failure:
        read({"data_dir": str(data)}, {})
    message = str(failure.value)
    assert str(path) in message
    assert words in message
    assert "\n" not in message


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_is_in_the_file_it_is_read_or_refused_in_a_line(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        path.write_bytes(content)
        try:
            config_file.read(path)
        except ConfigError as error:
            assert len(str(error).splitlines()) == 1


def test_what_is_in_force_is_shown_with_where_it_comes_from(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(data, 'max_batch = 2\n[model."my model"]\ntemperature = 0.5\nchat_template_kwargs = {a = "b"}')
    monkeypatch.setenv("TILES_API_KEY", "a-very-secret-key")
    run = CliRunner(catch_exceptions=False).invoke
    facts = json.loads(run(config, ["--json", "--data-dir", str(data), "--port", "1"]).stdout)
    assert facts["file"] == {"path": str(path), "exists": True}
    assert facts["settings"]["port"] == {"value": 1, "source": "--port"}
    assert facts["settings"]["max_batch"] == {"value": 2, "source": str(path)}
    assert facts["settings"]["api_key"] == {"value": ["***"], "source": "TILES_API_KEY"}
    assert facts["settings"]["host"] == {"value": ["127.0.0.1"], "source": "default"}
    assert facts["model"] == {"my model": {"temperature": 0.5, "chat_template_kwargs": {"a": "b"}}}
    shown = run(config, ["--data-dir", str(data)], env={"COLUMNS": "200"}).stdout
    assert 'model."my model" temperature' in " ".join(shown.split())
    assert "secret" not in shown
    write(data, "port = 1\nport = 2")
    failure = run(config, ["--data-dir", str(data)])
    assert (failure.exit_code, len(failure.stderr.splitlines())) == (2, 1)


def test_a_request_wins_over_the_table_of_its_name_and_that_over_the_models() -> None:
    presets = Presets(
        {
            "cold": Preset(model="org/a", temperature=0.0, chat_template_kwargs={"enable_thinking": False}),
            "org/a": Preset(temperature=0.5, top_k=7, chat_template_kwargs={"enable_thinking": True, "x": 1}),
        }
    )
    request = presets.complete(GenerationRequest(model="cold"), "org/a")
    assert (request.sampling.temperature, request.sampling.top_k, request.sampling.top_p) == (0.0, 7, None)
    assert request.template_kwargs == {"enable_thinking": False, "x": 1}
    own = GenerationRequest(model="cold", sampling=Sampling(temperature=1.5), template_kwargs={"x": 2})
    request = presets.complete(own, "org/a")
    assert (request.sampling.temperature, request.template_kwargs["x"]) == (1.5, 2)
    other = GenerationRequest(model="org/b")
    assert presets.complete(other, "org/b") == other
    assert presets.sampling("org/a", LLAMA_SAMPLING).temperature == 0.5
    assert presets.sampling("org/b", LLAMA_SAMPLING) is LLAMA_SAMPLING
    assert (presets.model("cold"), presets.model("org/b"), presets.model(None)) == ("org/a", "org/b", None)


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two models, of which one place in memory is pinned to the first."""
    home = tmp_path_factory.mktemp("configured")
    for seed, name in enumerate(("alpha", "beta")):
        tiny_model.build(home / "models" / name, layers=1, seed=seed)
    (home / ".tiles" / "server").mkdir(parents=True)
    write(home / ".tiles" / "server", TABLES)
    with running(home) as server:
        yield server
        assert server.errors() == []


TABLES = """
models_dir = "~/models"
max_models = 1
[model.alpha]
context_length = 128
temperature = 0.25
pinned = true
[model."first one"]
model = "alpha"
temperature = 0
"""


def defaults(server: Server, model: str) -> dict[str, Any]:
    props = server.client.get("/props", params={"model": model}).json()
    defaults: dict[str, Any] = props["default_generation_settings"]
    return defaults | dict(defaults["params"])


def test_models_are_served_as_their_tables_say(router: Server) -> None:
    rows = {row["id"]: row["aliases"] for row in router.client.get("/v1/models").json()["data"]}
    assert rows == {"alpha": ["first one"], "beta": []}
    answers = [router.chat(model="first one", max_tokens=8).json()["choices"][0]["message"] for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]  # at temperature 0
    assert router.chat(model="first one").json()["model"] == "alpha"
    assert (defaults(router, "alpha")["n_ctx"], defaults(router, "alpha")["temperature"]) == (128, 0.25)
    assert "pinned" in error_of(router.chat(model="beta"), 500)["message"]
    assert router.client.post("/models/unload", json={"model": "first one"}).json() == {"success": True}
    wait_for(lambda: router.chat(model="beta").status_code == 200)
    assert defaults(router, "beta")["n_ctx"] == 8192


def test_the_file_is_read_again_on_sighup_and_a_bad_one_leaves_the_old_one(router: Server) -> None:
    data = router.home / ".tiles" / "server"
    write(data, TABLES.replace("0.25", "0.75").replace("max_models = 1", "max_models = 2"))
    router.process.send_signal(signal.SIGHUP)
    (line,) = wait_for(lambda: router.logged("configuration read again"))
    assert line["after_restart"] == ["max_models"]
    router.client.post("/models/load", json={"model": "alpha"})
    wait_for(lambda: router.client.get("/health").json().get("model") == "alpha")
    assert defaults(router, "alpha")["temperature"] == 0.75
    write(data, "[model.alpha]\ntemperature = -1")
    router.process.send_signal(signal.SIGHUP)
    (line,) = wait_for(lambda: router.logged("configuration not read again"))
    assert "temperature: give a number" in line["reason"]
    assert "\n" not in line["reason"]
    assert defaults(router, "alpha")["temperature"] == 0.75


@pytest.mark.slow
def test_the_end_of_the_terminal_is_the_end_of_the_server(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
        command = [sys.executable, "-m", "app", "serve", "--port", "0", "--shutdown-seconds", "0"]
        os.execve(sys.executable, command, environment(tmp_path))
    shown = b""
    while b"API" not in shown or b"/v1" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    with suppress(ChildProcessError):
        wait_for(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, what="the end of the server")


def test_an_alias_says_what_is_served(data: Path) -> None:
    write(data, 'model = "mine"')
    assert read({"data_dir": str(data)}, {}).model == "mine"
    settings = Settings(model="mine", presets=Presets({"mine": Preset(model="org/name")}))
    assert bootstrap.candidates(settings)[0].session.model == "org/name"


@pytest.mark.parametrize(("flags", "model", "demo"), [({"demo": True}, None, True), ({"model": "b"}, "b", False)])
def test_a_flag_that_says_what_to_serve_takes_the_place_of_what_the_file_says(
    data: Path, flags: dict[str, Any], model: str | None, demo: bool
) -> None:
    write(data, 'model = "a"')
    settings = read({"data_dir": str(data), **flags}, {})
    settings.check()
    assert (settings.model, settings.demo) == (model, demo)
