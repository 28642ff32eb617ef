"""The training data: disjoint from the evaluation, and right in form."""

import ast
import json
import re

import pytest
from mlx_lm.tool_parsers.json_tools import parse_tool_call

from demo_model import phrases, skills, topics_facts, words
from demo_model.conversation import Conversation
from demo_model.items import CATEGORIES, all_items
from demo_model.judge import TURN, memory_turn, right
from demo_model.mixture import LATE, STAGES, draw
from demo_model.source import Source, is_held_out
from demo_model.table import choices, rows
from demo_model.template import Template
from demo_model.topics_memory import memory

pytestmark = pytest.mark.slow
SAMPLE = 4000


@pytest.fixture(scope="module")
def training() -> list[Conversation]:
    """A sample of the training data."""
    source = Source("test")
    return [draw(source, mixture) for mixture, _ in STAGES for _ in range(SAMPLE // len(STAGES))]


def test_phrasings_of_the_evaluation_are_no_phrasings_of_the_training() -> None:
    assert phrases.TRAINING.keys() == phrases.HELD_OUT.keys()
    for kind, held_out in phrases.HELD_OUT.items():
        if kind not in ("given", "join"):
            assert not {p.lower().rstrip("?.! ") for p in held_out} & {
                p.lower().rstrip("?.! ") for p in phrases.TRAINING[kind]
            }, kind


def test_questions_about_the_server_are_disjoint() -> None:
    assert not set(choices(topics_facts.QUESTION)) & set(choices(topics_facts.HELD_OUT_QUESTION))


def test_everyday_tools_of_the_evaluation_are_unknown_to_the_training() -> None:
    def names(table: str) -> set[str]:
        return {name for cells in rows(table) for name in choices(cells[0])}

    assert not names(skills.TRAINING) & names(skills.HELD_OUT)


def test_slot_values_are_split_by_their_checksum() -> None:
    for held_out in (False, True):
        source = Source(3, held_out)
        made = [source.invented() for _ in range(200)] + [source.code() for _ in range(200)]
        assert all(is_held_out(word) == held_out for word in made)


def test_every_word_pool_has_words_for_the_training() -> None:
    for pool in ("NAMES", "CITIES", "NOUNS", "VERBS", "PARAMETERS", "COMMON"):
        assert sum(not is_held_out(word) for word in getattr(words, pool)) > 20


@pytest.mark.slow
def test_no_evaluation_item_occurs_in_the_training_data(training: list[Conversation]) -> None:
    template = Template()
    seen = {
        template.render(Conversation("", talk.messages[:end], talk.tools))
        for talk in training
        for end in range(1, len(talk.messages))
    }
    asked = {
        m.content
        for talk in training
        for m in talk.messages
        if m.role == "user" and not m.content.startswith("<result>")
    }
    for item in all_items():
        assert template.render(Conversation("", item.messages, item.tools)) not in seen
        if (
            item.category in ("greetings and self-description", "facts about the server", "memory-agent turns")
            and item.messages[-1].role == "user"
        ):
            last = item.messages[-1].content
            assert last.startswith("<result>") or last not in asked


def test_the_evaluation_is_the_same_each_time() -> None:
    assert all_items(0.2) == all_items(0.2)


def test_data_is_the_same_for_the_same_seed() -> None:
    assert [draw(Source(9), LATE) for _ in range(3)] == [draw(Source(9), LATE) for _ in range(3)]


def test_calls_parse_with_the_parser_of_mlx_lm(training: list[Conversation]) -> None:
    template, found = Template(), 0
    for talk in training:
        for message in talk.messages:
            if message.calls:
                text = template.prompt([message.as_dict()], [])
                assert [
                    parse_tool_call(block) for block in re.findall(r"<tool_call>(.*?)</tool_call>", text, re.DOTALL)
                ] == message.calls
                found += 1
    assert found > 100


def test_called_tools_exist_and_take_the_arguments(training: list[Conversation]) -> None:
    for talk in training:
        have = {t["function"]["name"]: t["function"]["parameters"]["properties"] for t in talk.tools}
        for message in talk.messages:
            assert all(set(call["arguments"]) <= set(have[call["name"]]) for call in message.calls)


def test_arguments_stand_in_what_the_user_said(training: list[Conversation]) -> None:
    for talk in training:
        for place, message in enumerate(talk.messages):
            for call in message.calls:
                said = talk.messages[place - 1].content
                strings = [v for v in call["arguments"].values() if isinstance(v, str)]
                assert all(value.lower() in said.lower() for value in strings), (said, call)


def test_memory_turns_parse_and_run() -> None:
    source, names = Source(5), set()
    for _ in range(400):
        for message in memory(source).messages:
            if message.role == "assistant":
                parts = TURN.fullmatch(message.content)
                assert parts and bool(parts[2]) != bool(parts[3])
                names |= {
                    node.func.id
                    for node in ast.walk(ast.parse(parts[2]))
                    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
                }
    assert names == {
        "create_file",
        "update_file",
        "read_file",
        "delete_file",
        "list_files",
        "go_to_link",
        "check_if_file_exists",
    }


def test_results_are_the_representation_of_a_dictionary() -> None:
    source = Source(6)
    for _ in range(200):
        for message in memory(source).messages:
            if message.content.startswith("<result>\n{"):
                assert isinstance(
                    ast.literal_eval(message.content.removeprefix("<result>\n").removesuffix("\n</result>")), dict
                )


def test_the_right_answer_is_judged_right() -> None:
    for item in all_items(0.3):
        calls = "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in item.wanted.calls)
        text = item.wanted.content + calls
        assert right(item, f"I think.\n</think>\n\n{text}" if item.thinking else text)


def test_another_program_is_judged_wrong() -> None:
    turn = "<think>\nI read.\n</think>\n<python>\n{}\n</python>\n<reply></reply>"
    assert memory_turn(turn.format('note = read_file( "a.md" )'), turn.format('note = read_file("a.md")'))
    assert not memory_turn(turn.format('note = read_file("b.md")'), turn.format('note = read_file("a.md")'))


def test_every_category_has_its_items() -> None:
    items = all_items()
    for category in CATEGORIES:
        assert sum(i.category == category.name and not i.thinking for i in items) == category.count


def test_tools_of_coding_agents_never_share_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skills, "other_name", lambda source: "same")
    assert all(len(skills.coding_skills(Source(seed), 7)) == 7 for seed in range(20))
