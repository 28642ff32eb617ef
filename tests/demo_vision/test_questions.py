"""Scenes and questions: what an answer says is what is drawn, and what is asked is not what is trained on."""

import re
from collections import Counter
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo_model.source import Source, is_held_out
from demo_vision import questions, scenes
from demo_vision.evaluate import CATEGORIES, all_items, is_right
from demo_vision.questions import MAKERS, NUMBERS, PHRASES, Question
from demo_vision.scenes import CHARACTERS, COLOURS, CONTENTS, LETTERS, MIDDLES, SHAPES, SIZES, SQUARE, THINGS

SEEDS = st.tuples(st.integers(0, 2**32), st.booleans())
ask = settings(deadline=None, max_examples=60)


def nearest(pixel: np.ndarray) -> str:
    return min(COLOURS, key=lambda name: float(np.abs(pixel.astype(int) - COLOURS[name]).sum()))


@ask
@given(SEEDS, st.sampled_from(list(MAKERS)))
def test_a_seed_makes_the_same_question_and_picture_again(seed: tuple[int, bool], maker: questions.Maker) -> None:
    def made() -> tuple[Question, bytes]:
        source = Source(*seed)
        question = maker(source)
        return question, scenes.pixels(scenes.draw(source, question.scene).image).tobytes()

    assert made() == made()


@ask
@given(SEEDS)
def test_what_is_seen_is_drawn_where_it_is_said_to_be(seed: tuple[int, bool]) -> None:
    source = Source(*seed)
    question = questions.see(source)
    pixels = scenes.pixels(scenes.draw(source, question.scene).image)
    assert (pixels.shape[1], pixels.shape[0]) in SIZES
    short = min(pixels.shape[:2])
    for thing in question.scene.things:
        assert nearest(pixels[int(thing.y * short), int(thing.x * short)]) == thing.colour
        assert thing.name in question.answer.lower()
        assert thing.x - thing.radius + 0.01 > 0
        assert thing.y - thing.radius + 0.01 > 0
    named = re.findall(f"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})", question.answer.lower())
    assert named == [(thing.colour, thing.shape) for thing in question.scene.from_left]


@ask
@given(SEEDS)
def test_what_is_in_each_square_is_said(seed: tuple[int, bool]) -> None:
    source = Source(*seed)
    scene = questions.question(source).scene
    contents = scenes.draw(source, scene).contents
    assert contents.shape == (scene.height // SQUARE, scene.width // SQUARE)
    short = min(scene.width, scene.height)
    for thing in scene.things:
        place = int(thing.y * short) // SQUARE, int(thing.x * short) // SQUARE
        assert contents[place] == MIDDLES + THINGS.index(thing.name)
    middles = sorted(THINGS[number - MIDDLES] for number in contents.flat if MIDDLES <= number < LETTERS)
    assert middles == sorted(thing.name for thing in scene.things)  # of two that are alike, each has one
    rows = [[CHARACTERS[number - LETTERS] for number in row if number >= LETTERS] for row in contents]
    read = {"".join(character for character, _ in groupby(row)) for row in rows if row}
    assert len(read) == bool(scene.text)
    for text in read:  # a letter thinner than a square may stand between two middles
        letters = iter(scene.text)
        assert all(character in letters for character in text)
        assert len(text) >= len({*scene.text}) / 2
    marked = {THINGS[(number - 1) % len(THINGS)] for number in contents.flat if 0 < number < LETTERS}
    assert marked == {thing.name for thing in scene.things}
    assert contents.max() < CONTENTS


@ask
@given(SEEDS)
def test_no_thing_lies_over_another(seed: tuple[int, bool]) -> None:
    scene = questions.count(Source(*seed)).scene
    for number, one in enumerate(scene.things):
        for other in scene.things[number + 1 :]:
            assert np.hypot(one.x - other.x, one.y - other.y) > one.radius + other.radius


def right_answer(question: Question) -> str:
    """What to answer to a question about its scene, from the words of the question and what is drawn."""
    scene, text = question.scene, question.text
    if asks(text, "letters"):
        return "-".join(scene.text)
    if scene.text:
        return scene.text if scene.text.isdigit() else f"It says: {scene.text}"
    if asks(text, "see"):
        return questions.listed([questions.with_article(thing) for thing in scene.from_left])
    words = re.findall(r"[a-z]+", text.lower())
    about = [thing for thing in scene.things if thing.name in text]
    if about:
        (one,) = about
        (other,) = (thing for thing in scene.things if thing != one)
        side = next(side for side in ("left", "right", "above", "below") if asks(text, side))
        reach = {"left": one.x - other.x, "right": other.x - one.x, "above": one.y - other.y, "below": other.y - one.y}
        assert reach[side] == max(reach.values()) > 0
        return questions.with_article(other)
    named = [word.removesuffix("s") for word in words if word.removesuffix("s") in (*COLOURS, *SHAPES)]
    alike = [thing for thing in scene.things if all(name in (thing.colour, thing.shape) for name in named)]
    if asks(text, "count"):
        return NUMBERS[len(alike)]
    (thing,) = alike
    return thing.colour if "colour" in words else f"a {thing.shape}"


def asks(text: str, kind: str) -> bool:
    """Whether the text is a question of that kind."""
    phrases = [re.escape(phrase).replace(r"\{0\}", ".*") for split in PHRASES[kind] for phrase in split]
    return any(re.fullmatch(phrase, text) for phrase in phrases)


@ask
@given(SEEDS, st.sampled_from(list(MAKERS)))
def test_an_answer_says_what_is_drawn(seed: tuple[int, bool], maker: questions.Maker) -> None:
    question = maker(Source(*seed))
    assert question.answer.lower() == f"{right_answer(question)}.".lower()
    assert len(question.scene.things) <= 5


@ask
@given(SEEDS, st.booleans())
def test_a_conversation_asks_different_things_about_one_scene(seed: tuple[int, bool], is_file: bool) -> None:
    asked = questions.conversation(Source(*seed), is_file=is_file)
    assert 1 <= len(asked) <= (6 if any(question.kind == "count" for question in asked) else 4)
    assert len({question.scene for question in asked}) == 1
    assert len({question.fact for question in asked}) == len(asked)
    for question in asked:
        assert question.answer.lower() == f"{right_answer(question)}.".lower()


def test_conversations_ask_every_kind_of_question_behind_another() -> None:
    source = Source("behind")
    later = Counter(question.kind for _ in range(400) for question in questions.conversation(source)[1:])
    assert set(later) == {"colour and shape", "left and above", "count", "words", "letters"}


def test_a_picture_in_a_file_is_mostly_asked_about_as_a_whole_first() -> None:
    source = Source("files")
    first = [questions.conversation(source, is_file=True)[0].text for _ in range(400)]
    assert sum(text in PHRASES["see"][0] for text in first) > 200


def test_scenes_held_out_are_named_in_no_conversation_of_the_training() -> None:
    source = Source("named")
    for number in range(1500):
        asked = questions.conversation(source, is_file=number % 2 == 1)
        things = asked[0].scene.things
        if len(things) in (2, 3) and any(question.kind != "count" for question in asked):
            assert not is_held_out(", ".join(sorted(thing.name for thing in things)))


@pytest.mark.parametrize("maker", list(MAKERS))
def test_nothing_of_the_evaluation_is_in_the_training(maker: questions.Maker) -> None:
    asked, trained = Source("a", held_out=True), Source("b")
    for source in (asked, trained):
        for _ in range(150):
            question = maker(source)
            text = question.scene.text
            if text and not (text.isdigit() and len(text) < 3):
                assert is_held_out(text) == source.held_out
            if len(question.scene.things) > 1 and maker is not questions.count:
                names = ", ".join(sorted(thing.name for thing in question.scene.things))
                assert is_held_out(names) == source.held_out
    for training, held_out in PHRASES.values():
        assert not set(training) & set(held_out)


def test_answers_are_judged_by_what_they_say() -> None:
    scene = scenes.Scene(128, 128)
    two = Question("colour and shape", scene, "", "A red circle and a blue square.")
    assert is_right(two, "A blue square and a red circle.")
    assert is_right(two, "a red circle, a blue square")
    assert not is_right(two, "A red square and a blue circle.")
    assert not is_right(two, "A red circle.")
    assert not is_right(two, "A red circle, a blue square and a red circle.")
    word = Question("words", scene, "", "It says: Tree.")
    assert is_right(word, "It says: Tree.")
    assert not is_right(word, "It says: tree.")


def test_the_evaluation_asks_of_each_category_and_always_the_same() -> None:
    items = list(all_items(0.03))
    assert Counter(item.category for item in items) == {category: 6 for category, *_ in CATEGORIES}
    assert items == list(all_items(0.03))
