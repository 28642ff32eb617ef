"""The figures: medians, ratios round by round, goals, and the JSON they are kept in."""

import json
from pathlib import Path

import pytest

from benchmarks import figures, names
from benchmarks.errors import BenchmarkError
from benchmarks.figures import Figures
from benchmarks.goals import GOALS, Goal, verdicts
from benchmarks.measure import Measure, Result, Series
from benchmarks.workloads import WORKLOADS


def test_a_series_tells_its_median_and_what_it_spread_over() -> None:
    series = Series([3.0, 1.0, 2.0, 9.0])
    assert (series.median, series.low, series.high) == (2.5, 1.0, 9.0)


def test_ratios_are_taken_round_by_round_and_always_say_how_many_times_better_ours_is() -> None:
    ours, peer = Series([10.0, 100.0, 4.0]), Series([5.0, 20.0])
    assert Measure("rate", "", "", True).ratios(ours, peer).values == [2.0, 5.0]
    assert Measure("wait", "", "", False).ratios(ours, peer).values == [0.5, 0.2]


def test_a_peer_that_shows_nothing_is_infinitely_far() -> None:
    assert Series([1.0]).over(Series([0.0])).values == [float("inf")]


def test_a_goal_beside_a_peer_is_a_ratio() -> None:
    result = Result("one-stream", "", names.DEMO)
    result.take(names.OURS, {"tokens_per_second": 96.0})
    result.take(names.IN_PROCESS, {"tokens_per_second": 100.0})
    [of_any, of_demo] = verdicts([result])
    assert of_any.series == of_demo.series == Series([0.96])
    assert of_any.reached is of_demo.reached is False
    assert (of_any.goal.told, of_demo.goal.told) == ("at least 0.97", "at least 1.1")


def test_a_goal_for_one_model_judges_no_other() -> None:
    result = Result("one-stream", "", names.LARGER)
    result.take(names.OURS, {"tokens_per_second": 100.0})
    result.take(names.IN_PROCESS, {"tokens_per_second": 100.0})
    [verdict] = verdicts([result])
    assert (verdict.goal.model, verdict.reached) == (None, True)


def test_a_goal_beside_another_measure_of_ours_is_a_ratio_too() -> None:
    result = Result("restart", "", names.LARGER)
    result.take(names.OURS, {"warm_ttft": 140.0, "cold_ttft": 1000.0})
    [verdict] = verdicts([result])
    assert verdict.series is not None
    assert verdict.series.median == pytest.approx(0.14)
    assert verdict.reached is True


def test_a_goal_on_the_value_itself_is_not_divided() -> None:
    goal = Goal("idle", "start", "idle", 0.5, at_most=True, unit=" %")
    result = Result("start", "", names.DEMO, {names.OURS: {"idle": Series([0.6])}})
    assert goal.series(result) == Series([0.6])
    assert not goal.holds(0.6)


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    result = Result("one-stream", "", names.LARGER, {names.OURS: {"tokens_per_second": Series([1.0])}})
    [verdict] = verdicts([result])
    assert (verdict.series, verdict.reached) == (None, None)


def test_every_goal_names_measures_that_its_workload_has() -> None:
    for goal in GOALS:
        workload = WORKLOADS[goal.workload]
        measures = {measure.name for measure in workload.measures}
        assert {goal.measure, goal.against or goal.measure} <= measures
        judged = [targets for model, targets in workload.targets.items() if goal.model in (None, model)]
        assert judged and all(goal.peer in targets for targets in judged)


def test_json_brings_back_what_was_measured(results: list[Result], tmp_path: Path) -> None:
    results[0].failures["in process"] = "OSError: gone"
    run = Figures({"CPU": "small"}, results, 61.0)
    (tmp_path / "run.json").write_text(run.to_json())
    assert figures.read(tmp_path / "run.json") == run


def test_json_names_every_goal_and_whether_it_was_reached(results: list[Result]) -> None:
    goals = json.loads(Figures({}, results).to_json())["goals"]
    title = "short requests, times `mlx_lm.server`"
    peer = next(goal for goal in goals if goal["title"] == title and goal["model"] == names.DEMO)
    assert (peer["median"], peer["reached"]) == (4.0, True)
    assert {goal["title"] for goal in goals} == {goal.title for goal in GOALS}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 0, "machine": {}, "seconds": 1, "results": []}'])
def test_a_file_without_figures_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(BenchmarkError):
        figures.read(tmp_path / "run.json")
