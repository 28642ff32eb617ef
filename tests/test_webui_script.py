"""scripts/llamacpp_webui.sh: which checkout it takes, that it writes to none, and what it gives to Vite."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BACKEND = "http://127.0.0.1:7070"

# npm ci puts this where Vite would be; it says what it was called with.
VITE = """#!/usr/bin/env node
const fs = require("fs");
console.log(JSON.stringify({
  folder: process.cwd(), arguments: process.argv.slice(2), origin: process.env.VITE_PUBLIC_SERVER_ORIGIN,
  config: fs.readFileSync("vite.config.ts", "utf8"),
}));
"""
NEWER = "const origin = env.VITE_PUBLIC_SERVER_ORIGIN || 'http://localhost:8080';\n"
OLDER = "proxy: { '/v1': 'http://localhost:8080', '/props': 'http://localhost:8080' },\n"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not all(map(shutil.which, ("npm", "git"))), reason="there is no npm or no git here"),
]


def checkout(at: Path, place: str = "tools/ui", config: str = NEWER) -> Path:
    """A checkout whose one package, from a folder beside it, is something called vite."""
    ui = at / place
    files = {
        "vite.config.ts": config,
        "package.json": '{"name": "ui", "version": "1.0.0", "dependencies": {"vite": "file:vite"}}',
        "package-lock.json": """{"name": "ui", "version": "1.0.0", "lockfileVersion": 3, "packages": {
            "": {"name": "ui", "version": "1.0.0", "dependencies": {"vite": "file:vite"}},
            "node_modules/vite": {"resolved": "vite", "link": true},
            "vite": {"version": "1.0.0", "bin": {"vite": "vite.js"}}}}""",
        "vite/package.json": '{"name": "vite", "version": "1.0.0", "bin": {"vite": "vite.js"}}',
        "vite/vite.js": VITE,
        "dist/index.html": "a build of the user's",
    }
    for name, content in files.items():
        (ui / name).parent.mkdir(parents=True, exist_ok=True)
        (ui / name).write_text(content)
    (ui / "vite/vite.js").chmod(0o755)
    (at / "src").mkdir()
    (at / "src" / "llama.cpp").write_text("x" * 1000)
    return at


def state(folder: Path) -> dict[str, tuple[str, int]]:
    return {str(p): (p.read_text(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def run(tmp_path: Path, *arguments: str, script: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TILES_", "LLAMA_", "VITE_"))}
    told = {"TILES_BACKEND": BACKEND, "TILES_WEBUI_WORK": str(tmp_path / "work"), "npm_config_offline": "true"}
    command = [str(script or ROOT / "scripts/llamacpp_webui.sh"), *arguments]
    return subprocess.run(command, env=kept | told | more, capture_output=True, text=True, timeout=300)


def test_a_newer_ui_is_told_the_backend(tmp_path: Path) -> None:
    source = checkout(tmp_path / "llama.cpp")
    before = state(source)
    ran = run(tmp_path, "--port", "5180", LLAMA_CPP_ROOT=str(source))
    assert ran.returncode == 0, ran.stderr
    assert f'"origin":"{BACKEND}"' in ran.stdout
    assert '"arguments":["dev","--port","5180"]' in ran.stdout
    assert str(tmp_path / "work") in ran.stdout
    assert "localhost:8080" in ran.stdout  # its configuration is not touched
    assert state(source) == before
    again = run(tmp_path, LLAMA_CPP_ROOT=str(source))
    assert "npm ci" in ran.stderr
    assert "npm ci" not in again.stderr
    assert again.returncode == 0


def test_an_older_ui_has_its_proxy_changed_in_a_copy(tmp_path: Path) -> None:
    source = checkout(tmp_path / "llama.cpp", "tools/server/webui", OLDER)
    before = state(source)
    ran = run(tmp_path, LLAMA_CPP_ROOT=str(source), TILES_BACKEND=f"{BACKEND}/")
    assert ran.returncode == 0, ran.stderr
    assert "localhost:8080" not in ran.stdout
    assert f"'/v1': '{BACKEND}', '/props': '{BACKEND}'" in ran.stdout
    assert state(source) == before


def test_an_older_ui_without_a_known_proxy_is_refused(tmp_path: Path) -> None:
    ran = run(tmp_path, LLAMA_CPP_ROOT=str(checkout(tmp_path / "llama.cpp", config="proxy: {}\n")))
    assert ran.returncode == 1
    assert "no backend to change" in ran.stderr


def test_checkouts_are_looked_for_in_order_and_then_one_is_cloned(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "scripts").mkdir(parents=True)
    script = Path(shutil.copy(ROOT / "scripts/llamacpp_webui.sh", project / "scripts"))
    origin = checkout(tmp_path / "origin")
    for command in (["init", "-q"], ["add", "-f", "."], ["commit", "-qm", "one"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(origin), *identity, *command], check=True)
    subprocess.run(["git", "-C", str(origin), "config", "uploadpack.allowFilter", "true"], check=True)
    repo = origin.as_uri()

    cloned = run(tmp_path, script=script, LLAMA_CPP_REPO=repo)
    assert cloned.returncode == 0, cloned.stderr
    assert f"cloning its UI from {repo}" in cloned.stderr
    clone = tmp_path / "work" / "llama.cpp"
    assert (clone / "tools/ui/package.json").is_file()
    assert not (clone / "src").exists()  # sparse
    assert (clone / ".git" / "shallow").is_file()
    assert "cloning" not in run(tmp_path, script=script, LLAMA_CPP_REPO=repo).stderr

    beside = checkout(tmp_path / "llama.cpp")
    assert f"the UI is in {beside}" in run(tmp_path, script=script).stderr
    within = checkout(project / "third_party/llama.cpp")
    assert f"the UI is in {within}" in run(tmp_path, script=script).stderr
    named = checkout(tmp_path / "named")
    assert f"the UI is in {named}" in run(tmp_path, script=script, LLAMA_CPP_ROOT=str(named)).stderr


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = run(tmp_path, LLAMA_CPP_ROOT=str(tmp_path / "empty"))
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)
    assert "has no Web UI" in ran.stderr
    script = tmp_path / "project/scripts/llamacpp_webui.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / "scripts/llamacpp_webui.sh", script)
    ran = run(tmp_path, script=script, LLAMA_CPP_REPO=(tmp_path / "nothing").as_uri())
    assert ran.returncode == 1
    assert "give a checkout with LLAMA_CPP_ROOT" in ran.stderr
    assert not (tmp_path / "work/llama.cpp").exists()
