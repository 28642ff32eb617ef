"""Whole turns of a user, with a model that knows the protocol: it writes, corrects, links and recalls notes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import app
from tests.conftest import running
from tests.memory_cli import Cli, Remembering

MODEL = Path(app.__file__).with_name("tiles_nano")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (MODEL / "config.json").exists(), reason="the demo model is not in this checkout"),
]

PROMPT = (
    "You are an agent with a memory of files. Answer with <think>…</think>, <python>…</python> and <reply>…</reply>."
)
GREEDY = {"temperature": 0, "max_tokens": 400}


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remembering]:
    home = tmp_path_factory.mktemp("agent")
    with running(home, env={"TILES_SESSION_FILE": str(home / "session.json")}) as server:
        yield Remembering(server, home / "memory", MODEL)
        assert server.errors() == []


@pytest.fixture
def memory(agent: Remembering, tmp_path: Path) -> Path:
    """An empty folder."""
    agent.memory = tmp_path / "memory"
    agent.memory.mkdir()
    return agent.memory


def ask(agent: Remembering, *texts: str) -> str:
    """Say something in a new session, turn by turn, and give the last reply."""
    assert agent.start(system_prompt=PROMPT).status_code == 200
    cli = Cli(agent.server.url)
    return [cli.turn(text, **GREEDY) for text in texts][-1]


def test_a_fact_is_written_down_and_recalled(agent: Remembering, memory: Path) -> None:
    assert "Ada" in ask(agent, "My name is Ada.", "What is my name?")
    assert (memory / "user.md").read_text() == "# User\n- name: Ada\n"


def test_a_fact_outlives_its_session(agent: Remembering, memory: Path) -> None:
    (memory / "user.md").write_text("# User\n- city: Lisbon\n")
    assert "Lisbon" in ask(agent, "What is my city?")


def test_a_fact_is_corrected(agent: Remembering, memory: Path) -> None:
    (memory / "user.md").write_text("# User\n- city: Lisbon\n")
    ask(agent, "Actually, my city is Oslo.")
    assert (memory / "user.md").read_text() == "# User\n- city: Oslo\n"


def test_a_person_is_linked_and_found_through_the_link(agent: Remembering, memory: Path) -> None:
    ask(agent, "My sister is Mia.")
    assert "[[people/Mia]]" in (memory / "user.md").read_text()
    ask(agent, "Mia lives in Oslo.")
    assert "Oslo" in (memory / "people" / "Mia.md").read_text()
    assert "Oslo" in ask(agent, "Where does my sister live?")


def test_a_note_is_written_and_opened_by_its_link(agent: Remembering, memory: Path) -> None:
    ask(agent, "Write a note plans.md: buy seven apples")
    assert (memory / "plans.md").read_text().strip() == "buy seven apples"
    assert "buy seven apples" in ask(agent, "What is behind [[plans]]?")


def test_nothing_of_a_conversation_is_on_disk_unless_asked_for(agent: Remembering, memory: Path) -> None:
    ask(agent, "My name is Ada.")
    assert (agent.server.home / "session.json").exists()
    assert not (agent.server.home / "session.conversation.json").exists()
