"""What docs/models.md is made of fits the architectures, the checks and the exceptions."""

import json

from tests.engine.architectures import CONFIGS
from tests.families.__main__ import RESULTS, WRONG, with_new_fallback
from tests.families.checks import CHECKS, disk
from tests.families.exceptions import EXCUSES

FAMILIES = json.loads(RESULTS.read_text())["families"]


def test_every_architecture_was_checked_in_every_way() -> None:
    assert {name for name in FAMILIES if not name.endswith(".jinja")} == set(CONFIGS)
    ways = {"batch", *(check.__name__ for check in (*CHECKS, disk))}
    architectures = {name: outcome for name, outcome in FAMILIES.items() if name in CONFIGS}
    assert [
        name for name, outcome in architectures.items() if "load" not in outcome and not ways <= outcome.keys()
    ] == []


def test_every_exception_stands_in_the_table_with_its_reason() -> None:
    assert {name: outcome["exception"] for name, outcome in FAMILIES.items() if "exception" in outcome} == {
        name: excuse.reason for name, excuse in EXCUSES.items()
    }


def test_nothing_of_the_machine_is_told() -> None:
    assert "site-packages" not in RESULTS.read_text()


def test_a_family_that_falls_back_to_own_batches_anew_is_a_fault() -> None:
    joined, alone, alone_anew = ({"batch": text} for text in ("joined", "own batches: 5%", "own batches: 7%"))
    assert with_new_fallback(alone, joined)["batch"].startswith(WRONG)
    assert with_new_fallback(joined, alone)["batch"].startswith(WRONG)
    for outcome, before in ((joined, joined), (alone_anew, alone), (alone, {}), ({"load": "no"}, joined)):
        assert with_new_fallback(outcome, before) == outcome
