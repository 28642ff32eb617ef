import json
import os
import pty
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.commands import checks, model_checks
from app.commands.checks import CheckContext
from app.commands.doctor import doctor
from app.commands.models import models
from app.commands.ps import ps
from app.commands.pull import pull
from app.commands.rm import rm
from app.commands.serve import serve
from app.commands.show import show
from app.commands.stop import stop
from app.services import catalog, session
from app.services.downloads import client
from app.services.session import Session
from app.settings import Settings
from tests import encoders, gguf_files, tiny_model
from tests.doctor import looked
from tests.http_server import serving
from tests.hub_stand_in import Hub, running_hub

COMMANDS = ("models", "show", "pull", "rm", "ps", "stop", "webui", "doctor")


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("built") / "tiny", hidden=32, layers=1)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh account, the only one a test touches."""
    for name in [name for name in os.environ if name.startswith(("TILES_", "HF_", "XDG_", "HUGGINGFACE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TILES_PORT", "0")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def entry(home: Path, built: Path) -> Path:
    """The snapshot of org/tiny in the Hugging Face cache."""
    snapshot = home / ".cache/huggingface/hub/models--org--tiny/snapshots/c0"
    return Path(shutil.copytree(built, snapshot))


def run(command: Any, *arguments: str) -> Result:
    return CliRunner(catch_exceptions=False).invoke(command, arguments)


def error_of(result: Result, exit_code: int = 1) -> str:
    assert result.exit_code == exit_code
    (line,) = result.stderr.splitlines()
    return line


def test_commands_import_nothing_that_takes_seconds() -> None:
    heavy = "{'mlx', 'mlx_lm', 'transformers', 'huggingface_hub', 'tokenizers', 'numpy', 'psutil', 'jinja2'}"
    code = (
        f"import sys, app.commands.{', app.commands.'.join(COMMANDS)}; sys.exit(str({heavy} & set(sys.modules) or ''))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stderr.strip() == ""


def test_models_lists_what_is_here_and_why_not(entry: Path) -> None:
    shutil.copytree(entry, entry.parents[2] / "models--org--torn/snapshots/c0")
    (entry.parents[2] / "models--org--torn/snapshots/c0/model.safetensors").unlink()
    result = run(models)
    words = " ".join(result.stdout.split())
    assert result.exit_code == 0
    assert "org/tiny" in words
    assert "llama, float32 8,192 yes" in words
    assert f"org/torn: {entry.parents[2]}/models--org--torn/snapshots/c0 has no weights" in result.stdout


def test_models_as_json(entry: Path) -> None:
    (model,) = json.loads(run(models, "--json").stdout)
    assert (model["id"], model["path"], model["loadable"], model["problem"]) == ("org/tiny", str(entry), True, None)
    assert (model["model_type"], model["precision"], model["context_length"]) == ("llama", "float32", 8192)
    assert model["disk_bytes"] > 4 * model["parameters"]


def test_models_on_a_fresh_account_says_how_to_get_one(home: Path) -> None:
    assert "tiles-server pull" in run(models).stdout
    assert json.loads(run(models, "--json").stdout) == []


def test_show_says_what_a_model_is_and_takes(entry: Path) -> None:
    (entry / "LICENSE.txt").write_text("for tests")
    result = run(show, "org/tiny")
    words = " ".join(result.stdout.split())
    assert result.exit_code == 0
    assert "llama, float32, MLX" in words
    assert "Context 8,192 tokens (max_position_embeddings in config.json)" in words

    facts = json.loads(run(show, str(entry), "--json").stdout)
    assert (facts["id"], facts["format"], facts["license"]) == ("org/tiny", "MLX", str(entry / "LICENSE.txt"))
    assert facts["weight_bytes"] == 4 * facts["parameters"]
    assert facts["memory"]["cache_tokens"] == facts["context_length"] == 8192
    assert facts["memory"]["bytes"] > facts["memory"]["weights"] + facts["memory"]["cache"] > 0
    assert run(show, "org/none").exit_code == 1


def test_show_says_which_tensors_of_a_gguf_file_are_not_exact(built: Path, tmp_path: Path) -> None:
    file = gguf_files.write(built, tmp_path / "tiny-Q8_0.gguf", "Q8_0")
    facts = json.loads(run(show, str(file), "--json").stdout)
    assert (facts["format"], facts["precision"], facts["model_type"]) == ("GGUF", "Q8_0", "llama")
    assert facts["tensors"]["Q8_0"] > 0
    assert facts["packing"] == f"{facts['tensors']['Q8_0']} tensors exact"
    words = " ".join(run(show, str(file)).stdout.split())
    assert f"Packed {facts['packing']}" in words


@pytest.fixture
def hub(home: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a model of which not everything is to come."""
    with running_hub() as one:
        one.add("org/tiny", built).files["modeling_evil.py"] = b"raise SystemExit"
        monkeypatch.setenv("HF_ENDPOINT", one.url)
        yield one


def events(result: Result) -> list[dict[str, Any]]:
    """What a command prints without a terminal."""
    assert (result.exit_code, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_pull_downloads_a_model_that_can_be_served(hub: Hub) -> None:
    *progress, last = events(run(pull, "https://huggingface.co/org/tiny"))
    assert all((one["event"], one["model"]) == ("download_progress", "org/tiny") for one in progress)
    assert progress[-1]["done"] == progress[-1]["total"] > 0
    served = catalog.resolve("org/tiny")
    assert served.id == "org/tiny"
    assert last == {
        "event": "download_finished",
        "model": "org/tiny",
        "path": str(served.path),
        "precision": "float32",
        "command": "tiles-server --model org/tiny",
    }
    assert not (served.path / "modeling_evil.py").exists()


@pytest.mark.parametrize("quant", ["q8_0", "Q4_0"])
def test_pull_downloads_one_gguf_file_with_its_shards_and_its_vision_part(
    hub: Hub, tiny: Path, tmp_path: Path, quant: str
) -> None:
    folder = tmp_path / "ggufs"
    folder.mkdir()
    gguf_files.write(tiny, folder / "tiny-Q8_0.gguf", "Q8_0")
    gguf_files.write(tiny, folder / "tiny-b-Q4_0.gguf", "Q4_0", shards=2)
    (folder / "mmproj-F16.gguf").write_bytes(b"GGUF")
    hub.add("org/ggufs", folder)
    model_id = f"org/ggufs:{quant.upper()}"
    assert events(run(pull, f"org/ggufs:{quant}"))[-1]["command"] == f"tiles-server --model {model_id}"
    served = catalog.resolve(model_id)
    assert (served.id, served.precision) == (model_id, quant.upper())
    shards = {"q8_0": {"tiny-Q8_0.gguf"}, "Q4_0": {f"tiny-b-Q4_0-0000{n}-of-00002.gguf" for n in (1, 2)}}[quant]
    assert {path.name for path in served.path.parent.iterdir()} == shards | {"mmproj-F16.gguf"}
    assert model_id in run(models).stdout
    assert "Q8_0, Q4_0" in error_of(run(pull, "org/ggufs"))


def test_pull_shows_a_person_a_bar_and_what_to_do_next(hub: Hub, home: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "app", "pull", "org/tiny"])
    shown = b""
    with suppress(OSError):  # how the other end is closed
        while part := os.read(terminal, 4096):
            shown += part
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown
    assert b"Serve it with: tiles-server --model org/tiny" in shown
    assert b"bytes" in shown or b"MB" in shown or b"kB" in shown
    assert b"download_progress" not in shown


def test_pull_says_when_what_came_cannot_be_served(hub: Hub) -> None:
    hub.repos["org/tiny"].files["tokenizer.json"] = b"{"
    result = run(pull, "org/tiny")
    message = result.stderr
    assert (result.exit_code, len(message.splitlines())) == (1, 1)
    assert "is downloaded but cannot be served" in message
    assert "tokenizer.json" in message


@pytest.mark.parametrize(
    ("repo_id", "words"),
    [("org/none", "has no model org/none"), ("org/gated", "is gated"), ("org/empty", "has no MLX model")],
)
def test_pull_says_in_one_line_what_it_cannot_download(hub: Hub, home: Path, repo_id: str, words: str) -> None:
    hub.repos["org/gated"] = replace(hub.repos["org/tiny"], gated=True)
    hub.repos["org/empty"] = replace(hub.repos["org/tiny"], files={"README.md": b""})
    assert words in run(pull, repo_id).stderr.splitlines()[-1]
    assert not list((home / ".cache/huggingface/hub").rglob("config.json"))


@pytest.mark.parametrize("repo_id", ["a/b/c", "org/näme", "../..", "x" * 200, "", "a b"])
def test_pull_and_rm_of_what_is_no_repo_id_are_bad_use(home: Path, repo_id: str) -> None:
    assert "is no repo id" in error_of(run(pull, repo_id), 2)
    assert "is no repo id" in error_of(run(rm, repo_id, "--yes"))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_pull_does_not_wait_for_ever(home: Path, silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 0.1)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent_port}")
    assert "cannot be reached" in error_of(run(pull, "org/tiny"))


def test_rm_deletes_a_model_of_the_cache_if_one_says_so(hub: Hub, home: Path) -> None:
    run(pull, "org/tiny")
    assert "--yes is needed" in error_of(run(rm, "org/tiny"), 2)
    assert "Deleted org/tiny" in run(rm, "org/tiny", "--yes").stdout
    assert not list((home / ".cache/huggingface/hub").glob("models--*"))
    assert "not found" in error_of(run(rm, "org/tiny", "--yes"))


@pytest.mark.parametrize("arguments", [(ps,), (models,), (stop, "x"), (pull, "org/tiny"), (rm, "org/tiny", "--yes")])
def test_without_a_server_the_commands_that_ask_one_say_so_in_a_line(home: Path, arguments: tuple[Any, ...]) -> None:
    assert "No server answers at http://127.0.0.1:1" in error_of(run(*arguments, "--url", "http://127.0.0.1:1"))


def test_doctor_checks_a_gguf_file(tiny: Path, home: Path, tmp_path: Path) -> None:
    file = gguf_files.write(tiny, tmp_path / "tiny-Q8_0.gguf", "Q8_0")
    result = run(doctor, "--model", str(file))
    assert f"✓ Model  tiny-Q8_0: llama, Q8_0, context 8,192 (context_length of the file), {file}" in result.stdout
    assert "✓ Chat template" in result.stdout
    assert "✓ Tokenizer  encodes and decodes 'Zoë says 你好 🙂'" in result.stdout
    assert "✓ Batches  answers that are made at once share a batch" in result.stdout
    assert not (home / ".tiles").exists()


def test_an_encoder_is_shown_and_checked_as_one(home: Path, tmp_path: Path) -> None:
    folder = encoders.build(tmp_path / "small-bert", most_tokens=48)
    shown = json.loads(run(show, str(folder), "--json").stdout)
    assert (shown["task"], shown["context_length"], shown["memory"]["cache"]) == ("embedding", 48, 0)
    assert "embeddings" in run(show, str(folder)).stdout
    result = run(doctor, "--model", str(folder))
    assert "✓ Model  small-bert: bert" in result.stdout
    assert "Chat template" not in result.stdout
    assert "Batches" not in result.stdout


def test_doctor_finds_a_good_model_well(entry: Path) -> None:
    result = run(doctor, "--model", "org/tiny")
    assert result.exit_code == 0
    assert "✓ Model  org/tiny: llama, float32" in result.stdout
    assert "✓ Chat template" in result.stdout
    assert "✓ Tokenizer  encodes and decodes 'Zoë says 你好 🙂'" in result.stdout
    assert "✓ Batches  answers that are made at once share a batch" in result.stdout
    assert "✗" not in result.stdout


def test_doctor_fails_for_a_bad_model_and_says_what_to_do(entry: Path) -> None:
    (entry / "config.json").unlink()
    result = run(doctor, "--model", "org/tiny")
    assert result.exit_code == 1
    assert f"✗ Model  {entry}/config.json is missing." in result.stdout
    assert "tiles-server models" in result.stdout


def test_doctor_looks_at_the_model_of_the_session(entry: Path, home: Path) -> None:
    session.write(home / ".tiles/server_session.json", Session("org/tiny"))
    assert "✓ Model  org/tiny" in run(doctor).stdout


def test_doctor_as_json_has_only_json_on_its_output(home: Path) -> None:
    (home / ".tiles").mkdir()
    (home / ".tiles/server_session.json").write_text("torn")
    found = {check["name"]: check for check in json.loads(run(doctor, "--json").stdout)}
    assert found["Python"]["state"] == "ok"
    assert found["Session"]["state"] == "warning"
    assert found["Model"]["state"] == "warning"
    assert all(check["advice"] for check in found.values() if check["state"] != "ok")


def test_doctor_takes_a_bad_setting_for_bad_use(home: Path) -> None:
    assert "--port" in error_of(run(doctor, "--port", "many"), exit_code=2)


def test_doctor_changes_nothing(home: Path) -> None:
    run(doctor)
    assert list(home.iterdir()) == []


def test_a_port_in_use_is_a_failure(home: Path, silent_port: int) -> None:
    patient = CheckContext(Settings(port=silent_port))
    assert checks._bind_problem("127.0.0.1", silent_port) == "address already in use"
    assert checks.port(CheckContext(Settings(port=0))).state == "ok"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "_is_tiles", lambda *_: False)
        assert checks.port(patient).state == "failed"


@pytest.mark.parametrize(
    ("body", "state"),
    [('{"tiles": true}', "ok"), ('{"status": "ok"}', "failed"), ("3", "failed"), ("<html>", "failed")],
)
def test_a_port_that_a_tiles_server_has_is_well(tmp_path: Path, body: str, state: str) -> None:
    (tmp_path / "health").write_text(body)
    with serving(partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as url:
        assert checks.port(CheckContext(Settings(port=int(url.rpartition(":")[2])))).state == state


def test_a_missing_blas_is_a_warning_that_says_what_to_install(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.services.engine.model import blas

    monkeypatch.setattr(checks, "_is_linux_cpu", lambda: True)
    monkeypatch.setattr(blas, "preload", lambda _: blas.REFERENCE)
    found = looked("BLAS")
    assert (found.state, "apt-get install libopenblas" in found.advice) == ("warning", True)


@pytest.mark.parametrize(("compiled", "state"), [(True, "ok"), (False, "warning")])
def test_what_single_rows_are_computed_with_is_said(
    home: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool, state: str
) -> None:
    from app.services.engine.model import blas, row_products

    monkeypatch.setattr(checks, "_is_linux_cpu", lambda: True)
    monkeypatch.setattr(blas, "preload", lambda _: "libopenblas.so.0")
    monkeypatch.setattr(row_products, "is_compiled", lambda: compiled)
    found = looked("BLAS")
    assert (found.state, "apt-get install gcc" in (found.advice or "")) == (state, not compiled)


def test_a_missing_compiler_is_a_warning(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_is_linux_cpu", lambda: True)
    monkeypatch.setenv("PATH", "")
    assert looked("Compiler").state == "warning"


def test_an_mlx_that_does_not_start_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'libmlx.so: no such file' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    checks._back_end.cache_clear()
    found = checks.mlx(CheckContext(Settings()))
    checks._back_end.cache_clear()
    assert (found.state, found.detail) == ("failed", "does not start: libmlx.so: no such file")


def test_an_old_or_missing_package_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_version", lambda name: "0.31.9" if name == "mlx-lm" else "1.0")
    assert checks.packages(CheckContext(Settings())).state == "failed"
    monkeypatch.setattr(checks, "_version", lambda name: None if name == "mlx" else "1.0")
    assert "mlx missing" in checks.packages(CheckContext(Settings())).detail


@pytest.mark.parametrize(
    ("libc", "state"), [(("glibc", "2.35"), "ok"), (("glibc", "2.31"), "failed"), (("", ""), "failed")]
)
def test_an_old_c_library_is_a_failure(monkeypatch: pytest.MonkeyPatch, libc: tuple[str, str], state: str) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(checks.platform, "libc_ver", lambda: libc)
    assert checks.system(CheckContext(Settings())).state == state


@pytest.mark.parametrize(("weights", "state"), [(10**6, "ok"), (10**15, "failed")])
def test_a_model_that_does_not_fit_into_memory_is_a_failure(built: Path, weights: int, state: str) -> None:
    from dataclasses import replace

    model = replace(catalog.inspect(built), weight_bytes=weights)
    assert checks.memory(CheckContext(Settings(), model=model)).state == state


def test_a_data_folder_that_others_may_read_is_a_warning(tmp_path: Path) -> None:
    for mode, state in ((0o700, "ok"), (0o755, "warning")):
        tmp_path.chmod(mode)
        assert checks.data_folder(CheckContext(Settings(data_dir=tmp_path))).state == state


def test_a_data_folder_that_is_a_file_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert checks.data_folder(CheckContext(Settings(data_dir=tmp_path / "file"))).state == "failed"
    assert checks.data_folder(CheckContext(Settings(data_dir=tmp_path / "file/below"))).state == "failed"


@pytest.mark.parametrize(
    ("template", "state"),
    [
        ("{{ messages[0].content }}", "ok"),
        ("{% generation %}{{ messages[0].content }}{%- endgeneration -%}", "ok"),
        ("{{ messages | tojson(indent=2) }}{% for m in messages %}{% break %}{% endfor %}", "ok"),
        ("{% if tools is not none %}{{ raise_exception('tools') }}{% endif %}{{ messages[0].content }}", "ok"),
        ("nothing", "warning"),
        ("{% if %}", "failed"),
        ("{{ raise_exception('no') }}", "failed"),
        ("{{ ''.__class__.__mro__ }}", "failed"),
    ],
)
def test_a_chat_template_is_tried(built: Path, tmp_path: Path, template: str, state: str) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "tiny"))
    (folder / "chat_template.jinja").write_text(template)
    found = model_checks.chat_template(CheckContext(Settings(), model=catalog.inspect(folder)))
    assert found is not None
    assert found.state == state


@pytest.mark.parametrize("template", ["{{ messages[0].content }}", [{"name": "default", "template": "{{ messages }}"}]])
def test_a_chat_template_may_stand_in_the_tokenizer_config(built: Path, tmp_path: Path, template: object) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "tiny"))
    (folder / "chat_template.jinja").unlink()
    model = catalog.inspect(folder)
    found = model_checks.chat_template(CheckContext(Settings(), model=model))
    assert found is not None
    assert found.detail.startswith("none")
    settings = {"chat_template": template, "bos_token": {"content": "<s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert model_checks.chat_template(CheckContext(Settings(), model=model)) != found


def test_a_tokenizer_that_loses_text_is_a_warning(built: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "tiny"))
    model = catalog.inspect(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content | {"normalizer": {"type": "Lowercase"}}))
    lossy = model_checks.tokenizer(CheckContext(Settings(), model=model))
    (folder / "tokenizer.json").write_text("{}")
    broken = model_checks.tokenizer(CheckContext(Settings(), model=model))
    assert lossy is not None
    assert broken is not None
    assert (lossy.state, broken.state) == ("warning", "failed")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--max-models", "2"), "--models-dir"),
        (("--sleep-idle-seconds", "5"), "--models-dir"),
        (("--models-dir", "nowhere"), "is no folder"),
        (("--models-dir", "one"), "--model serves it"),
        (("--models-dir", ".", "--lora", "one"), "--lora is for one model"),
    ],
)
def test_flags_of_several_models_that_make_no_sense_are_told(
    tmp_path: Path, flags: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    ended = run(serve, *flags)
    assert (ended.exit_code, ended.output.count("\n")) == (2, 1)
    assert told in ended.output
