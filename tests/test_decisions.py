"""Questions whose answers are probabilities, over HTTP and through OpenAI's client."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest

from app.services.decisions import probabilities
from app.services.generation import PromptScores
from tests.conftest import Server, wait_for
from tests.refusals import error_of

STATE = "I was charged twice for my order last week, and nobody has replied."
TEAMS = {"billing": "payments and refunds", "shipping": None, "technical": None}
LEVELS = ["can wait", "this week", "today", "right now"]
QUESTIONS: Any = [
    {"type": "predicate", "name": "angry", "instructions": "The customer is angry."},
    {
        "type": "choice",
        "name": "route",
        "instructions": [{"type": "input_text", "text": "Which team should handle this?"}],
        "choices": [
            {"value": "billing", "description": "payments and refunds"},
            {"value": "shipping"},
            {"value": True},
        ],
    },
    {"type": "score", "instructions": "How urgent is this?", "levels": [{"label": level} for level in LEVELS]},
]
SYSTEM_ONE: dict[str, Any] = {
    "route": {"type": "choice", "instructions": "Which team should handle this?", "criteria": TEAMS},
    "urgency": {"type": "score", "instructions": "How urgent is this?", "criteria": LEVELS},
    "angry": {"type": "noul", "instructions": "Is the customer angry?"},
}

Reference = Callable[[str, list[str]], list[float]]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Reference:
    """The probabilities of answers to one user's message, by mlx-lm alone, each computed by itself."""
    from app.services.engine.model import blas

    blas.preload()
    import mlx.core as mx
    from mlx_lm import load

    model, tokenizer = load(str(tiny))[:2]

    def of(message: str, answers: list[str]) -> list[float]:
        messages = [{"role": "user", "content": message}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        before = tokenizer.encode(prompt, add_special_tokens=False)
        sums = []
        for answer in answers:
            tokens = tokenizer.encode(prompt + answer, add_special_tokens=False)
            logits = model(mx.array([tokens]))[0]
            logprobs = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
            assert tokens[: len(before)] == before
            sums.append(sum(logprobs[index - 1, tokens[index]] for index in range(len(before), len(tokens))))
        weights = np.exp(np.array(sums) - max(sums))
        return list((weights / weights.sum()).tolist())

    return of


def decide(server: Server, body: dict[str, Any]) -> httpx.Response:
    return server.client.post("/v1/decisions", json=body, timeout=120)


def system_one(server: Server, state: Any = STATE, **questions: Any) -> Any:
    answer = server.client.post(
        "/v1/systemone", json={"state": state, "questions": questions or SYSTEM_ONE}, timeout=120
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_openais_client_has_its_questions_answered(client: openai.OpenAI) -> None:
    decision = client.decisions.create(model="gpt-6-luna", input=STATE, questions=QUESTIONS)
    angry, route, urgency = decision.answers
    assert decision.model == "tiny"
    assert angry.type == "predicate" and angry.name == "angry" and 0 < angry.probability < 1
    assert route.type == "choice" and route.name == "route"
    assert [each.value for each in route.probabilities] == ["billing", "shipping", True]
    assert sum(each.probability for each in route.probabilities) == pytest.approx(1)
    assert route.choice == max(route.probabilities, key=lambda each: each.probability).value
    assert 0 <= route.confidence <= 1
    assert urgency.type == "score" and urgency.name is None
    assert [(each.label, each.value) for each in urgency.probabilities] == [
        (level, index) for index, level in enumerate(LEVELS)
    ]
    assert urgency.score == pytest.approx(sum(each.value * each.probability for each in urgency.probabilities))
    usage = decision.usage
    assert (usage.output_tokens, usage.input_tokens) == (0, usage.total_tokens)
    assert usage.input_tokens > usage.input_tokens_details.cached_tokens


def test_llama_servers_questions_are_answered(server: Server) -> None:
    answer = system_one(server)
    assert list(answer["answers"]) == ["route", "urgency", "angry"]
    route, urgency, angry = answer["answers"].values()
    assert route["type"] == "choice" and list(route["probabilities"]) == list(TEAMS)
    assert sum(route["probabilities"].values()) == pytest.approx(1)
    assert route["choice"] == max(route["probabilities"], key=route["probabilities"].get)
    assert urgency["type"] == "score"
    assert urgency["legend"] == {str(index): level for index, level in enumerate(LEVELS)}
    assert list(urgency["probabilities"]) == ["0", "1", "2", "3"]
    assert urgency["score"] == pytest.approx(sum(i * p for i, p in enumerate(urgency["probabilities"].values())))
    assert 0 <= route["confidence"] <= 1 and 0 <= urgency["confidence"] <= 1
    assert angry["type"] == "noul" and 0 < angry["noul"] < 1
    assert answer["usage"]["input_tokens"] > 0 and answer["usage"]["output_tokens"] == 0


def test_probabilities_are_those_of_the_model_alone(server: Server, reference: Reference) -> None:
    answer = system_one(server, route={"type": "choice", "instructions": "Which team?", "criteria": TEAMS})
    message = (
        f"{STATE}\n\n---\nWhich team?\nAnswer with one of these, and with nothing else:\n"
        "- billing: payments and refunds\n- shipping\n- technical"
    )
    probabilities = answer["answers"]["route"]["probabilities"]
    assert list(probabilities.values()) == pytest.approx(reference(message, list(TEAMS)), abs=0.002)


def test_answers_are_the_same_alone_and_beside_others(server: Server) -> None:
    together = system_one(server)["answers"]
    with ThreadPoolExecutor(4) as pool:
        chats = [pool.submit(server.client.post, "/v1/completions", json={"prompt": "Hi", "max_tokens": 40, "seed": 1})]
        alone = list(pool.map(lambda key: system_one(server, **{key: SYSTEM_ONE[key]})["answers"][key], SYSTEM_ONE))
    assert chats[0].result().status_code == 200
    for key, answer in zip(SYSTEM_ONE, alone, strict=True):
        for field in ("probabilities", "noul", "score"):
            assert answer.get(field) == pytest.approx(together[key].get(field), abs=1e-4)


def test_an_option_that_begins_another_is_told_apart_by_the_end(server: Server) -> None:
    criteria = {"no": None, "no, never": None}
    found = system_one(server, q={"type": "choice", "instructions": "Is it?", "criteria": criteria})
    turned = system_one(server, q={"type": "choice", "instructions": "Is it?", "criteria": criteria | {"yes": None}})
    assert all(0 < each < 1 for each in found["answers"]["q"]["probabilities"].values())
    assert all(0 < each < 1 for each in turned["answers"]["q"]["probabilities"].values())


def test_a_state_of_json_is_read_as_its_text(server: Server) -> None:
    criteria = {"true": "a refund is wanted", "false": "no refund is wanted"}
    question = {"type": "noul", "instructions": "Is a refund wanted?", "criteria": criteria}
    of_object = system_one(server, {"ticket": STATE, "plan": "pro"}, q=question)
    of_text = system_one(server, f'{{"ticket": "{STATE}", "plan": "pro"}}', q=question)
    assert of_object["usage"] == of_text["usage"]
    assert of_object["answers"]["q"]["noul"] == pytest.approx(of_text["answers"]["q"]["noul"], abs=1e-4)


def test_a_conversation_is_judged_as_a_transcript(server: Server) -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}, {"type": "input_json", "data": {"a": 1}}]},
        {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "42"},
        {"role": "assistant", "content": "It is 42."},
    ]
    transcript = 'user: Hi\n{"a": 1}\n\nassistant: [calls look with {}]\n\ntool: 42\n\nassistant: It is 42.'
    judged, written = (
        decide(server, {"input": given, "questions": QUESTIONS[:1]}).json() for given in (items, transcript)
    )
    assert judged["usage"]["total_tokens"] == written["usage"]["total_tokens"]
    assert judged["answers"][0]["probability"] == pytest.approx(written["answers"][0]["probability"], abs=1e-4)


def test_an_input_is_computed_once_for_all_questions(server: Server) -> None:
    questions = [{"type": "predicate", "instructions": f"The number {index} is in it."} for index in range(40)]
    state = "the river and the hill " * 60
    [alone] = [decide(server, {"input": f"{state}1", "questions": questions[:1]}).json()["usage"]["input_tokens"]]
    together = decide(server, {"input": f"{state}2", "questions": questions}).json()
    assert len(together["answers"]) == 40
    assert together["usage"]["input_tokens"] < 8 * alone
    again = decide(server, {"input": f"{state}2", "questions": questions}).json()
    assert again["usage"]["input_tokens_details"]["cached_tokens"] > 200
    for one, other in zip(together["answers"], again["answers"], strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)


def choices(*values: Any) -> dict[str, Any]:
    return {"type": "choice", "instructions": "Which?", "choices": [{"value": value} for value in values]}


@pytest.mark.parametrize(
    ("question", "word"),
    [
        (choices("one"), "two options"),
        (choices(), "two options"),
        (choices("one", "one"), "twice"),
        (choices(True, "True"), "twice"),
        (choices("one", " "), "empty"),
        (choices("one", 5), "no text"),
        (choices(*map(str, range(256))), "255"),
        ({"type": "score", "instructions": "Which?", "levels": [{"label": "a"}]}, "two options"),
        ({"type": "score", "instructions": "Which?", "levels": [{"label": "a"}, {}]}, "no text"),
        ({"type": "predicate", "instructions": ""}, "instructions"),
        ({"type": "frobnicate", "instructions": "Which?"}, "type"),
        (
            {"type": "predicate", "instructions": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]},
            "",
        ),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_by_name(
    server: Server, question: dict[str, Any], word: str
) -> None:
    error = error_of(decide(server, {"input": "Hi", "questions": [QUESTIONS[0], question]}), 400)
    assert word in error["message"]
    assert str(error["param"]).startswith("questions.1")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "Hi", "questions": []}, "questions"),
        ({"input": "Hi", "questions": QUESTIONS[:1] * 10_000}, "questions"),
        ({"input": " ", "questions": QUESTIONS}, "input"),
        (
            {
                "input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}],
                "questions": QUESTIONS,
            },
            "",
        ),
        ({"input": "the river " * 9000, "questions": QUESTIONS}, "input"),
        ({"input": "Hi", "questions": [QUESTIONS[0], choices("one", "the river " * 9000)]}, "questions.1"),
    ],
)
def test_an_input_that_cannot_be_judged_is_refused(server: Server, body: dict[str, Any], param: str) -> None:
    assert str(error_of(decide(server, body), 400)["param"] or "").startswith(param)


@pytest.mark.parametrize(
    "body",
    [
        {"questions": SYSTEM_ONE},
        {"state": STATE},
        {"state": STATE, "questions": {}},
        {"state": STATE, "questions": {"q": {"type": "unknown", "instructions": "x"}}},
        {"state": STATE, "questions": {"q": {"type": "noul"}}},
        {"state": STATE, "questions": {"q": {"type": "noul", "instructions": "x", "criteria": [1]}}},
        {"state": STATE, "questions": {"q": {"type": "choice", "instructions": "x"}}},
        {"state": STATE, "questions": {"q": {"type": "choice", "instructions": "x", "criteria": {}}}},
        {"state": STATE, "questions": {"q": {"type": "score", "instructions": "x", "criteria": ["only one"]}}},
    ],
)
def test_what_llama_server_refuses_is_refused(server: Server, body: dict[str, Any]) -> None:
    error_of(server.client.post("/v1/systemone", json=body), 400)


@pytest.mark.parametrize(
    "body",
    [
        {"state": STATE, "images": ["data:image/png;base64,AA=="]},
        {"state": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png,"}}]}]},
    ],
)
def test_images_are_refused_as_llama_server_refuses_them_without_sight(server: Server, body: dict[str, Any]) -> None:
    error_of(server.client.post("/v1/systemone", json={"questions": SYSTEM_ONE} | body), 501)


def test_who_hangs_up_has_nothing_computed_any_more(server: Server) -> None:
    questions = [{"type": "predicate", "instructions": f"The number {index} is in it."} for index in range(300)]
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{server.url}/v1/decisions", json={"input": "the hill " * 300, "questions": questions}, timeout=0.5)
    wait_for(
        lambda: any((line["route"], line["status"]) == ("/v1/decisions", 499) for line in server.logged("request"))
    )
    assert decide(server, {"input": "Hi", "questions": QUESTIONS}).status_code == 200


def test_a_temperature_evens_the_answers_out() -> None:
    scores = PromptScores(5, ((-1.0, -1.0), (-0.5,), (-4.0,)))
    plain, even = probabilities(scores, 1.0), probabilities(scores, 10.0)
    assert plain == pytest.approx([0.1781, 0.7980, 0.0240], abs=1e-3)
    assert max(even) - min(even) < max(plain) - min(plain)
    assert [sum(plain), sum(even)] == pytest.approx([1, 1])
    assert sorted(plain) == [plain[even.index(value)] for value in sorted(even)]
