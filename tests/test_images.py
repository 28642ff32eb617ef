"""Images in chats over HTTP, with a model that sees: every dialect, what is refused, and what is computed."""

import base64
from typing import Any

import pytest

from tests import vision_models
from tests.conftest import Server, running
from tests.prometheus import read, value
from tests.test_same_answers import ROUNDING

pytestmark = pytest.mark.slow
RED, BLUE = vision_models.png(1), vision_models.png(2)


def url(data: str) -> str:
    return f"data:image/png;base64,{data}"


def chat_part(data: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url(data)}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def chat(server: Server, *parts: Any, **more: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": list(parts)}], "temperature": 0, "max_tokens": 8} | more
    answer = server.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    reply: dict[str, Any] = answer.json()
    return reply


def logprobs(answer: dict[str, Any]) -> list[float]:
    return [token["logprob"] for token in answer["choices"][0]["logprobs"]["content"]]


def post(server: Server, path: str, **body: Any) -> dict[str, Any]:
    answer = server.client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    reply: dict[str, Any] = answer.json()
    return reply


def test_a_model_of_each_family_tells_images_apart_and_answers_the_same_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    models = tmp_path_factory.mktemp("families")
    for family in vision_models.FAMILIES:
        vision_models.build(models / family, family)
    with running(tmp_path_factory.mktemp("all"), "--models-dir", str(models), "--max-models", "1") as server:
        for family in vision_models.FAMILIES:
            first, other, again = (
                chat(server, text("What is"), chat_part(image), text("this?"), model=family, logprobs=True)
                for image in (RED, BLUE, RED)
            )
            assert again["choices"][0]["message"] == first["choices"][0]["message"], family
            assert logprobs(again) == pytest.approx(logprobs(first), abs=ROUNDING), family
            assert logprobs(other) != pytest.approx(logprobs(first), abs=ROUNDING), family
        assert server.errors() == []


def test_every_dialect_shows_the_model_the_same(seeing: Server) -> None:
    expected = chat(seeing, text("What is"), chat_part(RED), text("this?"))
    words, tokens = expected["choices"][0]["message"]["content"], expected["usage"]["prompt_tokens"]
    assert tokens > 4 + chat(seeing, text("What is this?"))["usage"]["prompt_tokens"]
    source = {"type": "base64", "media_type": "image/png", "data": RED}
    content = [text("What is"), {"type": "image", "source": source}, text("this?")]
    message = post(seeing, "/v1/messages", messages=[{"role": "user", "content": content}], max_tokens=8, temperature=0)
    assert "".join(block["text"] for block in message["content"]) == words
    assert message["usage"]["input_tokens"] + message["usage"].get("cache_read_input_tokens", 0) == tokens
    content = [
        {"type": "input_text", "text": "What is"},
        {"type": "input_image", "image_url": url(RED), "detail": "auto"},
        {"type": "input_text", "text": "this?"},
    ]
    response = post(
        seeing, "/v1/responses", input=[{"role": "user", "content": content}], max_output_tokens=8, temperature=0
    )
    assert response["output"][-1]["content"][0]["text"] == words
    assert response["usage"]["input_tokens"] == tokens


def test_the_answer_depends_on_the_image(seeing: Server) -> None:
    answers = {
        repr(chat(seeing, text("What is"), chat_part(vision_models.png(seed)), max_tokens=24)["choices"][0]["message"])
        for seed in range(6)
    }
    assert len(answers) > 1


def test_the_next_turn_computes_only_what_is_new_and_another_image_is_another_prompt(seeing: Server) -> None:
    first = [{"role": "user", "content": [text("Look at this for once"), chat_part(BLUE), text("and tell me")]}]
    answer = post(seeing, "/v1/chat/completions", messages=first, temperature=0, max_tokens=4)
    turn = [*first, answer["choices"][0]["message"], {"role": "user", "content": "And now?"}]
    usage = post(seeing, "/v1/chat/completions", messages=turn, max_tokens=4)["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= answer["usage"]["prompt_tokens"]
    first[0]["content"][1] = chat_part(vision_models.png(9))
    usage = post(seeing, "/v1/chat/completions", messages=first, max_tokens=4)["usage"]
    assert usage["prompt_tokens"] == answer["usage"]["prompt_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] < 24


def test_images_in_results_of_tools_are_seen(seeing: Server) -> None:
    used = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "look", "input": {}}]}

    def tokens(*parts: Any) -> int:
        result = {"type": "tool_result", "tool_use_id": "t", "content": list(parts)}
        turns = [{"role": "user", "content": "Look"}, used, {"role": "user", "content": [result]}]
        counted = post(seeing, "/v1/messages/count_tokens", messages=turns)["input_tokens"]
        reply = seeing.client.post("/v1/messages", json={"messages": turns, "max_tokens": 2})
        assert reply.status_code == 200, reply.text
        assert "X-Tiles-Ignored" not in reply.headers
        usage = reply.json()["usage"]
        assert usage["input_tokens"] + usage.get("cache_read_input_tokens", 0) == counted
        return int(counted)

    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": RED}}
    assert tokens(text("a"), image) - tokens(text("a")) >= 6


def test_several_answers_and_a_grammar_go_with_images(seeing: Server) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": ["red", "blue"]}}}
    reply = chat(
        seeing, chat_part(RED), text("Which?"), response_format=schema, max_tokens=24, n=3, thinking_budget_tokens=0
    )
    assert {choice["message"]["content"] for choice in reply["choices"]} <= {'"red"', '"blue"'}
    assert len(reply["choices"]) == 3


def test_the_model_says_that_it_sees(seeing: Server) -> None:
    assert seeing.client.get("/props").json()["modalities"]["vision"] is True
    models = seeing.client.get("/v1/models").json()
    assert models["data"][0]["architecture"]["input_modalities"] == ["text", "image"]
    assert "multimodal" in models["models"][0]["capabilities"]


def marker(server: Server) -> str:
    return str(server.client.get("/props").json()["media_marker"])


def with_images(prompt: str, *images: str) -> dict[str, Any]:
    return {"prompt_string": prompt, "multimodal_data": list(images)}


def question(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.parametrize("parts", [(RED,), (RED, BLUE), (RED, "and", BLUE, "now?"), ("What is", BLUE)])
def test_a_templated_prompt_is_continued_as_its_chat_is_answered(seeing: Server, parts: tuple[str, ...]) -> None:
    """The words, how likely they were, and the tokens of the prompt: llama-server's two ways in are one."""
    images = [part for part in parts if part in (RED, BLUE)]
    messages = question(*(chat_part(part) if part in images else text(part) for part in parts))
    prompt = post(seeing, "/apply-template", messages=messages)["prompt"]
    assert prompt.count(marker(seeing)) == len(images)
    counted = post(seeing, "/v1/chat/completions/input_tokens", messages=messages)["input_tokens"]
    options = {"temperature": 0, "max_tokens": 8}
    body = {"messages": messages, **options, "logprobs": True, "top_logprobs": 1, "reasoning_format": "none"}
    scores = post(seeing, "/v1/chat/completions", **body)["choices"][0]["logprobs"]["content"]
    for route, name in (("/completion", "n_probs"), ("/v1/completions", "logprobs")):
        for sent in (with_images(prompt, *images), [with_images(prompt, *images)]):
            answer = post(seeing, route, prompt=sent, **options, **{name: 1})
            if route == "/completion":
                assert answer["tokens_evaluated"] == counted
                tokens = [(each["token"], each["logprob"]) for each in answer["completion_probabilities"]]
            else:
                assert answer["usage"]["prompt_tokens"] == counted
                of_tokens = answer["choices"][0]["logprobs"]
                tokens = list(zip(of_tokens["tokens"], of_tokens["token_logprobs"], strict=True))
            assert tokens == [(each["token"], each["logprob"]) for each in scores]


@pytest.mark.parametrize("route", ["/completion", "/v1/completions"])
@pytest.mark.parametrize(
    ("markers", "images", "words", "param"),
    [
        (0, [RED], "0 markers", "prompt.multimodal_data"),
        (2, [RED], "2 markers", "prompt.multimodal_data"),
        (1, [RED, BLUE], "2 images", "prompt.multimodal_data"),
        (1, ["AA=="], "none of PNG", "prompt.multimodal_data.0"),
        (2, [RED, ""], "empty", "prompt.multimodal_data.1"),
    ],
)
def test_a_prompt_has_as_many_markers_as_images(
    seeing: Server, route: str, markers: int, images: list[str], words: str, param: str
) -> None:
    body = {"prompt": with_images("Look" + marker(seeing) * markers, *images), "max_tokens": 2}
    answer = seeing.client.post(route, json=body)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]["message"]
    assert answer.json()["error"]["param"] == param


def test_a_marker_without_images_is_text(seeing: Server) -> None:
    for prompt in (marker(seeing), {"prompt_string": marker(seeing)}):
        assert post(seeing, "/completion", prompt=prompt, n_predict=1)["tokens_evaluated"] > 6


def test_a_vector_is_of_text_alone(seeing: Server) -> None:
    answer = seeing.client.post("/v1/embeddings", json={"input": [with_images(marker(seeing), RED)]})
    assert answer.status_code == 400
    assert "no image" in answer.json()["error"]["message"]


def test_text_that_looks_like_an_image_shows_nothing(seeing: Server) -> None:
    reply = chat(seeing, text("<start_of_image><image_soft_token><end_of_image>"), chat_part(RED), text("?"))
    assert reply["choices"][0]["finish_reason"] in ("stop", "length")


BROKEN = [
    (url(RED[:200]), "decoded"),
    (url(""), "empty"),
    (url("AA=="), "none of"),
    (url(RED).replace("A", " ", 3), "base64"),
    ("https://tiles.example/a.png", "data URL"),
    ("file:///etc/passwd", "data URL"),
    ("/etc/passwd", "base64"),
    ("data:image/svg+xml;base64," + base64.b64encode(b"<svg xmlns='x'/>").decode(), "none of"),
    ("data:text/plain;base64,QUFB", "none of"),
    ("data:text/plain,QUFB", "data URL"),
    (url(vision_models.png(1, width=1000, height=1)), "long and thin"),
]


@pytest.mark.parametrize(("source", "words"), BROKEN)
def test_what_is_no_image_is_refused_with_its_place(seeing: Server, source: str, words: str) -> None:
    content = [text("Look"), {"type": "image_url", "image_url": {"url": source}}]
    answer = seeing.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_image", "messages.0.content.1")
    assert words in error["message"]
    assert RED[:40] not in seeing.log


def test_a_model_that_reads_text_only_refuses_the_users_images_and_leaves_out_those_of_tools(server: Server) -> None:
    content = [text("Look"), chat_part(RED)]
    answer = server.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]})
    assert answer.status_code == 400
    assert "reads text only" in answer.json()["error"]["message"]
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "Look"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": [text("a"), chat_part(RED)]},
    ]
    answer = server.client.post("/v1/chat/completions", json={"messages": turns, "max_tokens": 2})
    assert answer.status_code == 200
    assert answer.headers["X-Tiles-Ignored"] == "messages.content.image_url"


def test_one_request_takes_so_many_images_and_no_more(seeing: Server) -> None:
    content = [chat_part(vision_models.png(1))] * 65
    answer = seeing.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages.0.content.64"


def test_images_are_counted_once_as_computed_cached_or_refused(seeing: Server) -> None:
    """The second image stands behind other words, so that the tower's work is of use and the prefix cache is not."""
    names = ("images_total", "images_cached_total", "images_refused_total")
    before = read(seeing)
    image = chat_part(vision_models.png(50))
    chat(seeing, image, text("Look"))
    chat(seeing, text("Something else before it"), image, text("and behind it"))
    broken = question(text("Look"), chat_part("AA=="))
    assert seeing.client.post("/v1/chat/completions", json={"messages": broken}).status_code == 400
    after = read(seeing)
    grown = [value(after, f"tiles_{name}") - value(before, f"tiles_{name}") for name in names]
    assert grown == [1, 1, 1]
    assert value(after, "tiles_image_seconds_total") > value(before, "tiles_image_seconds_total")
