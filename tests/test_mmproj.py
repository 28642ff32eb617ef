"""GGUF files that see: a model's file and its vision part (mmproj) answer as the folder of the same weights does."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from app.services.gguf import mmproj
from app.services.gguf.architectures import for_file
from app.services.gguf.file import read
from tests import vision_models, vision_parts
from tests.conftest import Server, running
from tests.test_images import chat, chat_part, logprobs, text
from tests.test_same_answers import ROUNDING

pytestmark = pytest.mark.slow
RED, BLUE = vision_models.png(1, width=80, height=60), vision_models.png(2, width=80, height=60)
PART = "mmproj-seeing-f32.gguf"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Qwen2.5-VL, and the same as two files: a text model and its vision part."""
    root = tmp_path_factory.mktemp("seeing")
    folder = vision_models.build(root / "folder", "qwen2_5_vl")
    config = json.loads((folder / "config.json").read_bytes())
    config["vision_config"] |= {"window_size": 112}  # which is in no file
    (folder / "config.json").write_text(json.dumps(config))
    (root / "gguf").mkdir()
    model = vision_parts.write_text_model(folder, root / "gguf" / "seeing-F32.gguf")
    part = vision_parts.write(
        root / "gguf" / PART, "qwen2_5_vl", config, load_file(folder / "model.safetensors"), means=(0.5, 0.5, 0.5)
    )
    settings = mmproj.read(part, file := read(model), for_file(file).config).settings
    (folder / "preprocessor_config.json").write_text(json.dumps(dict(settings)))
    return root


def shown(server: Server, image: str) -> dict[str, Any]:
    return chat(server, text("What is"), chat_part(image), logprobs=True)


@pytest.fixture(scope="module")
def expected(files: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    with running(tmp_path_factory.mktemp("folder"), "--model", str(files / "folder")) as server:
        return [shown(server, image) for image in (RED, BLUE)]


@pytest.fixture
def alone(files: Path, tmp_path: Path) -> Iterator[Path]:
    """The file of the text model, with nothing beside it."""
    path = tmp_path / "alone" / "seeing-F32.gguf"
    path.parent.mkdir()
    shutil.copy(files / "gguf" / path.name, path)
    yield path


def assert_sees(server: Server, expected: list[dict[str, Any]]) -> None:
    props = server.client.get("/props").json()
    assert (props["modalities"]["vision"], props["tiles"]["warnings"]) == (True, [])
    for image, other in zip((RED, BLUE), expected, strict=True):
        answer = shown(server, image)
        assert answer["choices"][0]["message"] == other["choices"][0]["message"]
        assert logprobs(answer) == pytest.approx(logprobs(other), abs=ROUNDING)
        assert answer["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"]
    assert logprobs(expected[0]) != pytest.approx(logprobs(expected[1]), abs=ROUNDING)
    assert server.errors() == []


def test_a_file_sees_with_the_part_beside_it(files: Path, expected: list[dict[str, Any]], tmp_path: Path) -> None:
    with running(tmp_path, "--model", str(files / "gguf" / "seeing-F32.gguf")) as server:
        assert_sees(server, expected)


def test_a_file_sees_with_the_part_of_the_flag(
    files: Path, alone: Path, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    with running(tmp_path, "--model", str(alone), "--mmproj", str(files / "gguf" / PART)) as server:
        assert_sees(server, expected)


def test_a_part_that_does_not_fit_leaves_a_model_that_reads_text_and_says_why(
    files: Path, alone: Path, tmp_path: Path
) -> None:
    (alone.parent / "mmproj-model-f16.gguf").write_bytes(alone.read_bytes())
    with running(tmp_path, "--model", str(alone)) as server:
        props = server.client.get("/props").json()
        (warning,) = props["tiles"]["warnings"]
        assert "reads text only" in warning
        assert "mmproj-model-f16.gguf" in warning
        assert not props["modalities"]["vision"]
        assert server.chat("Hello", max_tokens=2).status_code == 200
        content = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{RED}"}}]
        refusal = server.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}]})
        assert refusal.status_code == 400
