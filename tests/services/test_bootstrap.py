from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.services import session
from app.services.bootstrap import Candidate, candidates, locate
from app.services.errors import LoadFailed
from app.services.session import Session
from app.settings import Settings
from tests import tiny_model

SAVED = Session("saved", "/saved", "/memory", "Be kind.")
VARIABLES = {"bootstrap_model": "boot", "bootstrap_model_cache_path": "/nowhere/boot"}
BOOT = Session("boot", "/nowhere/boot", "", "You are a helpful assistant.")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    session.write(tmp_path / "session.json", SAVED)
    return tmp_path


def settings(folder: Path, **changes: Any) -> Settings:
    return Settings(data_dir=folder / "data", session_file=folder / "session.json", **changes)


def test_a_model_that_is_asked_for_is_alone(saved: Path) -> None:
    found = candidates(settings(saved, model="org/tiny", demo=True, **VARIABLES))
    assert found == [Candidate("flag", Session("org/tiny", "", "", ""), persist=False)]


def test_the_demo_is_alone(saved: Path) -> None:
    assert candidates(settings(saved, demo=True, **VARIABLES)) == [Candidate("demo", Session("tiles-nano"))]


def test_the_session_comes_before_the_variables(saved: Path) -> None:
    found = candidates(settings(saved, **VARIABLES))
    assert found == [Candidate("session", SAVED), Candidate("bootstrap", BOOT, persist=True)]


def test_without_a_session_the_variables_are_tried_and_saved(tmp_path: Path) -> None:
    assert candidates(settings(tmp_path, **VARIABLES)) == [Candidate("bootstrap", BOOT, persist=True)]


def test_a_torn_session_leaves_the_variables(tmp_path: Path) -> None:
    (tmp_path / "session.json").write_text("{")
    assert [found.source for found in candidates(settings(tmp_path, **VARIABLES))] == ["bootstrap"]


def test_the_companions_of_the_variables_are_taken(tmp_path: Path) -> None:
    companions = {"bootstrap_memory_path": "/m", "bootstrap_system_prompt": "Be brief."}
    (found,) = candidates(settings(tmp_path, **VARIABLES, **companions))
    assert found.session == Session("boot", "/nowhere/boot", "/m", "Be brief.")


def test_a_session_that_must_not_be_kept_is_neither_read_nor_written(saved: Path) -> None:
    found = candidates(settings(saved, skip_session_persist=True, **VARIABLES))
    assert found == [Candidate("bootstrap", BOOT, persist=False)]


def test_nobody_asking_is_no_candidate_and_no_warning(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert candidates(settings(tmp_path)) == []
    assert logs == []


@pytest.mark.parametrize(
    ("half", "missing"),
    [
        ({"bootstrap_model": "boot"}, "TILES_BOOTSTRAP_MODEL_CACHE_PATH is"),
        ({"bootstrap_model_cache_path": "/boot"}, "TILES_BOOTSTRAP_MODEL is"),
    ],
)
def test_half_of_the_variables_is_a_warning_that_names_the_other(
    tmp_path: Path, half: dict[str, str], missing: str
) -> None:
    with capture_logs() as logs:
        assert candidates(settings(tmp_path, **half)) == []
    assert missing in logs[0]["reason"]


def test_a_candidate_is_located_where_it_says(tmp_path: Path) -> None:
    folder = tiny_model.build(tmp_path / "tiny", hidden=32, layers=1)
    there = Candidate("session", Session("mine", str(folder)))
    assert (locate(there).id, locate(there).path) == ("mine", folder)
    assert locate(Candidate("flag", Session(str(folder)))).id == "tiny"


def test_a_candidate_without_a_folder_fails_in_words(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="/nowhere/boot does not exist"):
        locate(Candidate("bootstrap", BOOT))


def test_the_demo_comes_with_the_package(tmp_path: Path) -> None:
    (candidate,) = candidates(settings(tmp_path, demo=True))
    assert locate(candidate).id == "tiles-nano"
