"""How far the training is, and how large its steps are."""

from demo_model.schedule import Schedule


def test_the_schedule_ends_by_tokens_or_by_minutes() -> None:
    schedule = Schedule(tokens=1000, minutes=10)
    assert schedule.progress(500, 1) == 0.5 and schedule.progress(100, 9) == 0.9
    assert schedule.rate(0.05) == 1 and schedule.rate(1) == 0 and schedule.rate(0) < 0.1
    assert schedule.rate(0.9) < schedule.rate(0.5) < 1
