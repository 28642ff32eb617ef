"""The training data: disjoint from the evaluation, and right in form."""

import ast
import json
import re
from typing import Any

import jsonschema
import numpy as np
import pytest
from mlx_lm.tool_parsers.json_tools import parse_tool_call
from tokenizers import Tokenizer

from app.services.engine.model.loading import read_tokenizer
from app.services.engine.sampling.grammar import GrammarCompiler
from app.services.generation import Constraint
from demo_model import (
    like_words,
    phrases,
    skills,
    topics_facts,
    topics_json,
    topics_store,
    topics_webui,
    webui_tools,
    words,
)
from demo_model.conversation import Conversation
from demo_model.forced import forced
from demo_model.items import CATEGORIES, all_items
from demo_model.judge import TURN, memory_turn, right
from demo_model.mixture import LATE, STAGES, draw
from demo_model.source import Source, is_held_out
from demo_model.table import choices, rows
from demo_model.template import FOLDER, Template
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
        if kind not in ("given", "join", "json"):  # of these some are no words at all
            assert not {p.lower().rstrip("?.! ") for p in held_out} & {
                p.lower().rstrip("?.! ") for p in phrases.TRAINING[kind]
            }, kind


def test_questions_about_the_server_are_disjoint() -> None:
    assert not set(choices(topics_facts.QUESTION)) & set(choices(topics_facts.HELD_OUT_QUESTION))


def test_everyday_tools_of_the_evaluation_are_unknown_to_the_training() -> None:
    def names(table: str) -> set[str]:
        return {name for cells in rows(table) for name in choices(cells[0])}

    assert not names(skills.TRAINING) & names(skills.HELD_OUT)


def test_structured_answers_of_the_evaluation_have_things_keys_and_texts_of_their_own() -> None:
    training, held_out = rows(topics_json.TRAINING), rows(topics_json.HELD_OUT)
    for column, ends in ((0, "|"), (2, "|")):
        cells = [{text.strip() for row in table for text in row[column].split(ends)} for table in (training, held_out)]
        assert not cells[0] & cells[1]


def test_tools_of_the_web_ui_are_described_otherwise_in_the_evaluation() -> None:
    for name in webui_tools.BROWSER_TOOLS:
        told = [{webui_tools.described(Source(seed, held_out), name) for seed in range(300)} for held_out in (0, 1)]
        assert len(told[0]) > 60 and len(told[1]) > 6 and not told[0] & told[1]


def test_chats_of_the_web_ui_call_where_a_tool_fits_and_nowhere_else() -> None:
    for seed in range(200):
        talk, calling = (topics_webui.chat(Source(seed), share) for share in (1.0, 0.0))
        assert talk.tools and not any(message.calls for message in talk.messages)
        after = zip(calling.messages, calling.messages[1:], strict=False)
        assert all(bool(answer.calls) == (said.role == "user") for said, answer in after if answer.role == "assistant")


@pytest.mark.parametrize("groups", [like_words.VERBS, like_words.NOUNS])
def test_pairs_of_like_words_in_the_evaluation_are_joined_by_other_words_in_the_training(groups: str) -> None:
    training = set(like_words.pairs(groups, False))
    held_out = set(like_words.pairs(groups, True))
    assert held_out and not training & held_out
    known = {word for pair in training for word in pair}
    assert all(word in known for pair in held_out for word in pair)


def test_no_word_is_in_two_groups_of_like_words() -> None:
    for groups in (like_words.VERBS, like_words.NOUNS):
        alike = [word for group in choices(groups) for word in group.split()]
        assert len(alike) == len(set(alike))


def test_the_store_has_a_sentence_for_each_of_its_subjects() -> None:
    assert topics_store.SENTENCES.keys() == topics_store.SUBJECTS.keys()


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
                # a sum becomes code that returns it
                values = [v for v in call["arguments"].values() if isinstance(v, str)]
                strings = [v.removeprefix("return ") for v in values]
                assert all(value.lower() in said.lower() for value in strings), (said, call)


def test_structured_answers_match_their_schema_and_hold_what_was_said() -> None:
    source, answers = Source("structured"), 0
    for _ in range(300):
        talk = topics_json.structured(source)
        assert talk.schema is not None
        for said, answer in zip(talk.messages[-2::-2], talk.messages[::-2], strict=False):
            value = json.loads(answer.content)
            jsonschema.validate(value, talk.schema)
            assert list(value) == list(talk.schema["properties"])
            assert all(text.lower() in said.content.lower() for text in texts_of(value)), (said, answer)
            answers += 1
    assert answers > 500


def texts_of(value: Any) -> list[str]:
    """The texts and numbers in a value, enums and flags left out by their kind: they are said in words of their own."""
    if isinstance(value, dict):
        return [text for inner in value.values() for text in texts_of(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in texts_of(inner)]
    return [] if isinstance(value, bool) else [str(value)]


def test_where_an_answer_counts_as_forced_the_grammar_of_the_server_leaves_one_text() -> None:
    tokenizer = read_tokenizer(FOLDER, None)
    compiler = GrammarCompiler(tokenizer, len(tokenizer._tokenizer), frozenset(tokenizer.eos_token_ids))
    fast, source, count = Tokenizer.from_file(str(FOLDER / "tokenizer.json")), Source("forced"), 0
    for _ in range(60):
        talk = topics_json.structured(source)
        text = talk.messages[-1].content
        encoding = fast.encode(text)
        matcher = compiler.compile(Constraint("json_schema", json.dumps(talk.schema), "response_format"))
        not_trained = set(forced(text, [*encoding.offsets, (len(text), len(text))]))
        for place, (token, (start, _)) in enumerate(zip(encoding.ids, encoding.offsets, strict=True)):
            if place in not_trained:
                allowed = [fast.decode([int(one)]) for one in np.flatnonzero(matcher.mask())]
                assert allowed and all(text.startswith(one, start) for one in allowed), (text, place)
                count += 1
            assert matcher.consume(token)
    assert count > 200


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
