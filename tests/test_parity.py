"""The comparison with llama-server's recorded answers: what it counts as a fault. The comparison is `nox -s parity`."""

import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def parity(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for name in ("parity", "parity_differences"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import parity  # type: ignore[import-not-found]

    return parity


def case(name: str, level: str, *, ok: bool) -> dict[str, Any]:
    return {"name": name, "level": level, "ok": ok}


def test_what_has_to_be_equal_and_what_differs_without_a_reason_are_faults(parity: Any) -> None:
    known = next(iter(parity.reasons()))
    fine = [case("a", "must", ok=True), case("b", "nice", ok=True), case(known, "nice", ok=False)]
    assert list(parity.faults_of("main", fine)) == []
    assert len(list(parity.faults_of("main", [*fine, case("c", "must", ok=False)]))) == 1
    assert len(list(parity.faults_of("main", [*fine, case("c", "nice", ok=False)]))) == 1
    assert list(parity.faults_of("main", [case(known, "must", ok=False)])) == [], "a reason is one for these too"
    assert len(list(parity.faults_of("main", [case(known, "nice", ok=True)]))) == 1, "a reason for nothing"
    assert len(list(parity.faults_of("main", []))) == 1, "nothing compared is nothing shown"


def test_without_recordings_it_says_that_it_skips(
    parity: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TILES_PARITY", str(tmp_path))
    assert parity.main([]) == 0
    assert "SKIPPED" in capsys.readouterr().out


def test_a_case_has_one_reason(parity: Any) -> None:
    import parity_differences  # type: ignore[import-not-found]

    named = [name for cases in parity_differences.DIFFERENCES.values() for name in cases]
    assert len(named) == len(set(named)) == len(parity.reasons())
