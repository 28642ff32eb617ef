"""nox -s webui: the UI's own development server in front of ours. No browser: Vite reloads pages while it warms up."""

import os
import signal
import subprocess
from pathlib import Path

import httpx

from app.services.ui import archive
from benchmarks.processes import free_port
from tests.conftest import Server, wait_for
from tests.e2e.build import need_npm, release

SCRIPT = Path(__file__).parents[2] / "scripts/llamacpp_webui.sh"
SLOW = 300.0


def test_the_ui_under_development_talks_to_this_server(demo: Server, tmp_path: Path) -> None:
    need_npm()
    ui = archive.unpack(release(), tmp_path / "release")
    port = free_port()
    told = {"TILES_BACKEND": demo.url, "LLAMA_CPP_ROOT": str(ui.parents[1]), "TILES_WEBUI_WORK": str(tmp_path / "work")}
    command = [str(SCRIPT), "--host", "127.0.0.1", "--port", str(port), "--strictPort"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, env=os.environ | told, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        props = wait_for(lambda: props_of(server, port), SLOW, what="the development server")
        assert props == demo.client.get("/props").json()
        page = httpx.get(f"http://127.0.0.1:{port}/", timeout=SLOW)
        assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


def props_of(server: subprocess.Popen[str], port: int) -> dict[str, object] | None:
    assert server.poll() is None, "the development server ended"
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/props", timeout=10)
    except httpx.TransportError:
        return None
    return answer.json() if answer.status_code == 200 else None
