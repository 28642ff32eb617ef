"""Conversations with images over a restart: from the disk, with the model's own tokens, and with what is stored."""

from pathlib import Path
from typing import Any

import pytest

from tests import vision_models
from tests.conftest import running

pytestmark = pytest.mark.slow
PNG = vision_models.png(1, width=160, height=120)
URL = f"data:image/png;base64,{PNG}"
WORDS = " ".join(f"Item {number} costs {number * 37 % 91}." for number in range(9))


@pytest.fixture(scope="module", params=["gemma3", "qwen3_5", "qwen3_vl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vision_models.build(tmp_path_factory.mktemp("models") / request.param, request.param)


def test_nothing_of_an_answer_to_an_image_is_computed_again(folder: Path, tmp_path: Path) -> None:
    """However the model wrote it: at this temperature it seldom splits words as its tokenizer does."""
    content = [{"type": "text", "text": WORDS}, {"type": "image_url", "image_url": {"url": URL}}]
    messages: list[Any] = [{"role": "user", "content": content}]
    body: dict[str, Any] = {"messages": messages, "temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0, "seed": 5}
    body["max_tokens"] = 60
    flags = ("--model", str(folder))
    with running(tmp_path, *flags) as server:
        ends = server.client.post("/tokenize", json={"content": "<|im_end|><|endoftext|>"}).json()["tokens"]
        body["logit_bias"] = {str(end): -100 for end in ends}
        first = server.client.post("/v1/chat/completions", json=body).json()
        text = first["choices"][0]["message"]["content"]
        assert server.stop() == 0
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "And then?"}]
    with running(tmp_path, *flags) as server:
        again = server.client.post("/v1/chat/completions", json=body).json()
        images = [line for line in server.client.get("/metrics").text.splitlines() if line == "tiles_images_total 0.0"]
    computed_before = first["usage"]["prompt_tokens"] + first["usage"]["completion_tokens"] - 1
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= computed_before
    assert images, "the tower has computed an image that was on the disk"


def test_a_stored_response_goes_on_with_its_image(folder: Path, tmp_path: Path) -> None:
    content = [{"type": "input_text", "text": WORDS}, {"type": "input_image", "image_url": URL}]
    flags = ("--model", str(folder))
    ids = []
    with running(tmp_path, *flags) as server:
        body: dict[str, Any] = {"input": [{"role": "user", "content": content}], "max_output_tokens": 4}
        for _ in range(3):
            response = server.client.post("/v1/responses", json=body).json()
            ids.append(response["id"])
            body = {"input": "And now?", "previous_response_id": response["id"], "max_output_tokens": 4}
        expected = server.client.post("/v1/responses/input_tokens", json=body).json()["input_tokens"]
        assert server.stop() == 0
    stored = list((tmp_path / ".tiles" / "server" / "responses").iterdir())
    assert len({path.stat().st_ino for path in stored if path.suffix == ".image"}) == 1
    assert all(path.stat().st_size < len(URL) for path in stored if path.suffix == ".json")
    with running(tmp_path, *flags) as server:
        answer = server.client.post("/v1/responses", json=body).json()
        assert answer["usage"]["input_tokens"] == expected
        items = server.client.get(f"/v1/responses/{ids[-1]}/input_items").json()["data"]
        assert [part["image_url"] for item in items for part in item["content"] if part["type"] == "input_image"] == [
            URL
        ]
