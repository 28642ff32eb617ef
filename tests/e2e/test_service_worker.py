"""What the UI leaves in a browser, and that it goes with the UI."""

import shutil
from pathlib import Path

from tests.conftest import running
from tests.e2e.conftest import Visit


def test_a_ui_that_is_taken_away_goes_from_the_browser_too(visit: Visit, ui: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(ui, tmp_path / "ui"))
    with running(tmp_path, "--demo", "--webui", str(folder)) as server:
        person = visit(server)
        person.expected |= {(404, "/build.json"), (404, "/_app/version.json"), (404, "/favicon.ico")}
        person.opens()
        assert person.page.evaluate("navigator.serviceWorker.ready.then(worker => worker.active !== null)")
        folder.rename(tmp_path / "away")
        person.page.reload()
        person.sees("Nothing that is written here is sent elsewhere.")
        assert person.page.evaluate("caches.keys()") == []
        person.page.goto(f"{server.url}/ping")  # the page would ask a server that is gone
        assert server.errors() == []
