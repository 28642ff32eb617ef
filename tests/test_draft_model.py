"""A draft model over HTTP: the same answers, told in timings and metrics, or a clear no."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny_model
from tests.conftest import Server, running, wait_for
from tests.doctor import looked
from tests.prometheus import read, value

pytestmark = pytest.mark.slow
TEXTS = ("Hello", "What is the weather in Paris? " * 40)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smaller model with the words of the tiny one, and another mind."""
    return tiny_model.build(tmp_path_factory.mktemp("small") / "small", layers=1, seed=5)


@pytest.fixture(scope="module")
def drafted(tiny: Path, home: Path) -> Iterator[Server]:
    """A server whose draft model is the model itself, so that all of its tokens are accepted."""
    with running(home, "--model", str(tiny), "--draft-model", str(tiny), "--draft-tokens", "6") as server:
        yield server
        assert server.errors() == []


@pytest.fixture(scope="module")
def misled(tiny: Path, small: Path, home: Path) -> Iterator[Server]:
    """A server whose draft model disagrees with the model."""
    flags = ("--model", str(tiny), "--draft-model", str(small), "--prompt-lookup", "4")
    with running(home, *flags) as server:
        yield server
        assert server.errors() == []


def test_an_answer_is_the_same_and_counts_its_draft_tokens(server: Server, drafted: Server) -> None:
    before = read(drafted)
    draft_tokens = accepted_tokens = 0
    for text in TEXTS:
        options = {"max_tokens": 60, "temperature": 0.8, "seed": 3, "ignore_eos": True}
        plain, answer = (one.chat(text, **options).json() for one in (server, drafted))
        assert answer["choices"] == plain["choices"]
        assert "draft_n" not in plain["timings"]
        draft_tokens += answer["timings"]["draft_n"]
        accepted_tokens += answer["timings"]["draft_n_accepted"]
    after = read(drafted)
    assert draft_tokens == accepted_tokens > 60
    for name, count in (
        ("tiles_draft_tokens_total", draft_tokens),
        ("tiles_draft_tokens_accepted_total", accepted_tokens),
    ):
        assert value(after, name) - value(before, name) == count


@pytest.mark.parametrize("text", TEXTS)
def test_an_answer_is_the_same_whatever_is_proposed(server: Server, misled: Server, text: str) -> None:
    options = {"max_tokens": 60, "temperature": 0.7, "seed": 5, "ignore_eos": True}
    plain, answer = (one.chat(text, **options).json() for one in (server, misled))
    assert answer["choices"] == plain["choices"]
    assert answer["timings"]["draft_n"] > answer["timings"]["draft_n_accepted"]


def test_a_draft_that_does_not_fit_is_told_at_start_and_by_doctor(tiny: Path, tmp_path: Path) -> None:
    tiny_model.build(tmp_path / "other", vocab_size=700, layers=1)
    for draft, reason in (("org/nobody", "The draft model: org/nobody is no folder"), ("other", "'<think>' in its")):
        name = draft if "/" in draft else str(tmp_path / draft)
        with running(tmp_path, "--model", str(tiny), "--draft-model", name, ready=False) as server:
            error = wait_for(lambda server=server: server.client.get("/health").json().get("last_error"))
            assert reason in error
            assert [reason in line["error"] for line in server.logged("load failed")] == [True]
    assert looked("Draft model", draft_model="org/nobody").state == "failed"
    assert "other: llama" in looked("Draft model", draft_model=str(tmp_path / "other")).detail


def test_several_models_go_without_a_draft_of_another_vocabulary(tiny: Path, small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "several"
    tiny_model.build(folder / "alike", layers=2, seed=1)
    tiny_model.build(folder / "apart", vocab_size=700, layers=1)
    with running(tmp_path, "--models-dir", str(folder), "--draft-model", str(folder / "alike")) as server:
        told = {
            name: server.chat(model=name, temperature=0, ignore_eos=True).json()["timings"].get("draft_n", 0)
            for name in ("alike", "apart")
        }
        assert (told["alike"] > 0, told["apart"]) == (True, 0)
        assert [line["model"] for line in server.logged("no draft model")] == ["apart"]
        assert server.errors() == []
