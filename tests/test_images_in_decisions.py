"""Questions about images, over HTTP: both dialects of decisions, with models that see."""

import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests import vision_models
from tests.conftest import Server, running
from tests.test_decisions import SYSTEM_ONE
from tests.test_images import BLUE, BROKEN, RED, chat_part, post, text, url
from tests.test_same_answers import ROUNDING

pytestmark = pytest.mark.slow
STATE = "It came by mail this morning."
PAIR = {"type": "choice", "instructions": "What is it?", "criteria": {"a square": None, "no square": None}}


def ask(server: Server, state: Any = STATE, questions: Any = SYSTEM_ONE, **more: Any) -> dict[str, Any]:
    return post(server, "/v1/systemone", state=state, questions=questions, **more)


def numbers(answers: Any) -> list[float]:
    """Give all probabilities of answers, in their order."""
    found: list[float] = []
    for answer in answers.values():
        found += answer["probabilities"].values() if "probabilities" in answer else [answer["noul"]]
    return found


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = tmp_path_factory.mktemp("families")
    for family in vision_models.FAMILIES:
        vision_models.build(models / family, family)
    with running(tmp_path_factory.mktemp("all"), "--models-dir", str(models), "--max-models", "64") as server:
        yield server
        assert server.errors() == []


@pytest.mark.parametrize("family", vision_models.FAMILIES)
def test_an_answer_is_as_likely_as_the_model_finds_it_behind_the_same_chat(families: Server, family: str) -> None:
    """The probabilities are those of the tokens of an answer behind the same image, where the answer is given."""
    words = f"{STATE}\n\n---\n{PAIR['instructions']}\nAnswer with one of these, and with nothing else:\n"
    messages = [{"role": "user", "content": [chat_part(RED), text(words + "- a square\n- no square")]}]
    template = post(families, "/apply-template", messages=messages, model=family)["prompt"]
    sums = []
    for option in ("a square", "no square"):
        prompt = {"prompt_string": template, "multimodal_data": [RED]}
        body = {"prompt": prompt, "model": family, "choice": [option], "logprobs": 1, "temperature": 0}
        choice = post(families, "/v1/completions", **body)["choices"][0]
        assert choice["text"] == option
        sums.append(sum(choice["logprobs"]["token_logprobs"]))
    expected = 1 / (1 + math.exp(sums[1] - sums[0]))
    answers = ask(families, questions={"pair": PAIR}, images=[url(RED)], model=family)["answers"]
    assert answers["pair"]["probabilities"]["a square"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("family", vision_models.FAMILIES)
def test_questions_about_images_are_answered_as_alone_and_each_image_by_itself(families: Server, family: str) -> None:
    pictures = [url(RED), url(BLUE)]
    together = ask(families, images=pictures, model=family)["answers"]
    for name, question in SYSTEM_ONE.items():
        alone = ask(families, questions={name: question}, images=pictures, model=family)["answers"]
        assert numbers(alone) == pytest.approx(numbers({name: together[name]}), abs=ROUNDING)
    turned = ask(families, images=pictures[::-1], model=family)["answers"]
    assert numbers(turned) != pytest.approx(numbers(together), abs=ROUNDING)


def test_images_come_before_the_state_wherever_they_are_given(seeing: Server) -> None:
    plain = ask(seeing)
    shown = ask(seeing, images=[url(RED)])
    assert numbers(shown["answers"]) != pytest.approx(numbers(plain["answers"]), abs=ROUNDING)
    each = (shown["usage"]["input_tokens"] - plain["usage"]["input_tokens"]) / len(SYSTEM_ONE)
    assert each >= 4 and each == int(each)

    def messages(*parts: Any) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [*parts]}]

    without = messages(text(STATE))
    first = ask(seeing, without, images=[url(RED), url(BLUE)])
    mixed = ask(seeing, messages(chat_part(BLUE), text(STATE)), images=[url(RED)])
    in_object = ask(seeing, {"messages": messages(text(STATE), chat_part(RED))})
    assert numbers(mixed["answers"]) == pytest.approx(numbers(first["answers"]), abs=ROUNDING)
    expected = ask(seeing, {"messages": without}, images=[url(RED)])
    assert numbers(in_object["answers"]) == pytest.approx(numbers(expected["answers"]), abs=ROUNDING)


def test_the_second_request_about_an_image_computes_no_image_again(seeing: Server) -> None:
    picture, state = url(vision_models.png(77)), "It came by mail. " * 80
    first = ask(seeing, state, images=[picture])["usage"]["input_tokens"] // len(SYSTEM_ONE)
    with openai.OpenAI(base_url=f"{seeing.url}/v1", api_key="tiles", max_retries=0) as client:
        content = [{"type": "input_image", "image_url": picture}, {"type": "input_text", "text": state}]
        decision = client.decisions.create(
            model="seeing",
            input=[{"role": "user", "content": content}],
            questions=[{"type": "predicate", "instructions": "It is round."}],
        )
    assert decision.usage.input_tokens_details.cached_tokens > first // 2
    assert decision.answers[0].type == "predicate" and 0 < decision.answers[0].probability < 1


def test_openais_input_shows_its_images_where_they_are(seeing: Server) -> None:
    def probability(*parts: Any, output: Any = "Nothing.") -> float:
        call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
        result = {"type": "function_call_output", "call_id": "c1", "output": output}
        user = {"role": "user", "content": [*parts, {"type": "input_text", "text": STATE}]}
        questions = [{"type": "predicate", "instructions": "It is round."}]
        answer = post(seeing, "/v1/decisions", model="x", input=[user, call, result], questions=questions)
        return float(answer["answers"][0]["probability"])

    def part(picture: str) -> dict[str, Any]:
        return {"type": "input_image", "image_url": url(picture)}

    found = [
        probability(),
        probability(part(RED)),
        probability(part(BLUE)),
        probability(output=[part(RED)]),
        probability(output=[{"type": "input_text", "text": "Nothing."}, part(BLUE)]),
    ]
    assert len({round(each, 5) for each in found}) == len(found)
    assert probability(part(RED)) == pytest.approx(found[1], abs=ROUNDING)


def refused(server: Server, path: str, body: dict[str, Any], status: int) -> dict[str, Any]:
    answer = server.client.post(path, json=body)
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


@pytest.mark.parametrize(("source", "words"), BROKEN)
def test_what_is_no_image_is_refused_with_its_place(seeing: Server, source: str, words: str) -> None:
    body = {"state": STATE, "questions": SYSTEM_ONE, "images": [url(RED), source]}
    error = refused(seeing, "/v1/systemone", body, 400)
    assert (error["code"], error["param"]) == ("invalid_image", "images.1")
    assert words in error["message"]


def test_what_cannot_be_shown_is_refused_in_words(seeing: Server, server: Server) -> None:
    body: dict[str, Any] = {"state": STATE, "questions": SYSTEM_ONE}
    assert "8" in refused(seeing, "/v1/systemone", body | {"images": [url(RED)] * 9}, 400)["message"]
    heard = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}]
    assert "audio" in refused(seeing, "/v1/systemone", body | {"state": heard}, 501)["message"]
    assert "text only" in refused(server, "/v1/systemone", body | {"images": [url(RED)]}, 501)["message"]

    part = {"type": "input_image", "image_url": url(RED)}
    shown = {"input": [{"role": "user", "content": [part]}], "questions": [{"type": "predicate", "instructions": "x"}]}
    error = refused(server, "/v1/decisions", shown, 400)
    assert "text only" in error["message"] and error["param"] == "input.0.content.0"
    asked = {"input": STATE, "questions": [{"type": "predicate", "instructions": [part]}]}
    error = refused(seeing, "/v1/decisions", asked, 400)
    assert "input" in error["message"] and error["param"] == "questions.0.instructions"


def test_a_prompt_of_ollamas_has_its_images_before_it(seeing: Server) -> None:
    options = {"stream": False, "options": {"temperature": 0, "num_predict": 8}}
    message = {"role": "user", "content": "What is this?", "images": [RED]}
    expected = post(seeing, "/api/chat", model="x", messages=[message], **options)["message"]["content"]
    found = post(seeing, "/api/generate", model="x", prompt="What is this?", images=[RED], **options)
    assert found["response"] == expected
    other = post(seeing, "/api/generate", model="x", prompt="What is this?", images=[BLUE], **options)
    assert other["prompt_eval_count"] == found["prompt_eval_count"]
    raw = post(seeing, "/api/generate", model="x", prompt="What is this?", images=[RED], raw=True, **options)
    assert raw["prompt_eval_count"] < found["prompt_eval_count"]
    error = seeing.client.post("/api/generate", json={"model": "x", "prompt": "What?", "images": ["AA=="]})
    assert error.status_code == 400 and "none of" in error.json()["error"]
