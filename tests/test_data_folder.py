"""What the server writes is its owner's alone."""

import stat
from pathlib import Path

import pytest

from tests.conftest import running

GENEROUS = ("-c", "import os; os.umask(0); from app.commands.cli import main; main()")
LONG = "Tell me of the sea. " * 20


def open_to_others(folder: Path) -> list[str]:
    """What others may read of a folder, itself included; links are as open as what they lead to."""
    paths = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    return [f"{path} {stat.S_IMODE(path.stat().st_mode):o}" for path in paths if path.stat().st_mode & 0o077]


@pytest.mark.slow
def test_all_that_is_written_is_its_owners_alone(tiny: Path, tmp_path: Path) -> None:
    with running(tmp_path, program=GENEROUS) as server:
        start = {"model": "tiny", "model_cache_path": str(tiny), "memory_path": "", "system_prompt": ""}
        assert server.client.post("/start", json=start).status_code in {200, 201}
        assert server.client.post("/v1/responses", json={"input": LONG, "max_output_tokens": 4}).status_code == 200
        assert server.chat(LONG, id_slot=0).status_code == 200
        assert server.client.post("/slots/0?action=save", json={"filename": "kept"}).status_code == 200
        assert server.stop() == 0
    ours = tmp_path / ".tiles"
    suffixes = {path.suffix for path in ours.rglob("*") if path.is_file()}
    assert {".json", ".safetensors"} <= suffixes, "a response, a session, a prefix and a slot"
    assert len(list(ours.rglob("*.safetensors"))) >= 2
    assert open_to_others(ours) == []


@pytest.mark.slow
def test_a_folder_that_was_there_keeps_its_mode(tiny: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    with running(tmp_path, "--model", str(tiny), "--data-dir", str(data), program=GENEROUS) as server:
        assert server.client.post("/v1/responses", json={"input": LONG, "max_output_tokens": 4}).status_code == 200
        assert server.stop() == 0
    assert stat.S_IMODE(data.stat().st_mode) == 0o755
    assert [path for below in data.iterdir() for path in open_to_others(below)] == []
