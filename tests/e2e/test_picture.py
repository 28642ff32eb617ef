"""The picture of the Web UI that README shows: build/e2e/readme.png, kept as docs/images/webui.png."""

from tests.conftest import Server
from tests.e2e.conftest import PICTURES, Visit

QUESTIONS = ("My name is Zoë.", "What is my name?")


def test_the_picture_of_readme(demo: Server, visit: Visit) -> None:
    person = visit(demo)
    person.opens()
    answers = [person.asks(question) for question in QUESTIONS]
    assert "Zoë" in answers[-1]
    person.keeps_a_picture(PICTURES / "readme.png")
    assert 10_000 < (PICTURES / "readme.png").stat().st_size < 300_000
