"""The network in PyTorch: the server computes the same from the folder that the training writes."""

from argparse import Namespace
from functools import partial
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is a tool for training only")

import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

from app.services.engine.sampling.params import SamplingParams  # noqa: E402
from app.services.engine.vision.prompt_images import PromptImages  # noqa: E402
from app.services.generation import Image  # noqa: E402
from demo_model.batches import IGNORED  # noqa: E402
from demo_model.source import Source  # noqa: E402
from demo_vision import checkpoint, questions, scenes  # noqa: E402
from demo_vision.batches import Picture, PictureFeed, SceneFeed, collate  # noqa: E402
from demo_vision.network import VisionShape, patches, positions  # noqa: E402
from demo_vision.train import Training, parser  # noqa: E402
from tests import vision_models  # noqa: E402
from tests.engine.workshop import Workshop, finish  # noqa: E402


@pytest.fixture(scope="module")
def training() -> Training:
    options = Namespace(**vars(parser().parse_args(["--test", "12", "--batch", "4", "--rehearsal", "512", "--eager"])))
    return Training(options)


@torch.no_grad()
def greedy(training: Training, picture: Picture, tokens: list[int], count: int) -> list[int]:
    """Give the likeliest next tokens of a prompt with one picture, as the network in PyTorch has them."""
    answer: list[int] = []
    for _ in range(count):
        ids = [*tokens, *answer]
        places = torch.tensor(positions(ids, picture.grid, training.pictures.image_token))[:, None]
        images = torch.tensor(picture.patches)
        embeddings = training.network.visual(images, *picture.grid)
        hidden = training.network.seen(torch.tensor([ids]), embeddings, places, training.pictures.image_token)
        answer.append(int(training.network.logits(hidden[0, -1]).argmax()))
    return answer


def test_the_server_computes_what_the_training_does(training: Training, tiny: Path, tmp_path: Path) -> None:
    with torch.no_grad():
        for parameter in training.network.parameters():
            parameter.copy_(parameter.half().float())
    checkpoint.export(training.network, training.tokenizer, tmp_path)
    model = vision_models.load_text_model(tmp_path)
    model.set_dtype(mx.float32)
    vision = vision_models.load_vision(tmp_path, model)
    assert vision is not None
    workshop = Workshop("seeing", tiny, model=model, vocabulary=training.tokenizer.get_vocab_size())
    for seed in range(4):
        source = Source(seed)
        question = questions.question(source)
        picture = training.pictures.picture(source, [question])
        end = next(place for place, is_trained in enumerate(picture.example.trained) if is_trained)
        tokens = picture.example.ids[:end]
        again = Source(seed)
        image = vision.read(Image(scenes.as_png(scenes.draw(again, questions.question(again).scene).image)))
        placed = vision.placed(image, tokens.index(training.pictures.image_token))
        row = workshop.row(tokens, SamplingParams(), 6, images=PromptImages((placed,)))
        finish(workshop.scheduler(vision=vision), [row])
        assert placed.grid == picture.grid
        assert row.answer == greedy(training, picture, tokens, len(row.answer))
        embeddings = vision.embeddings(placed)
        with torch.no_grad():
            expected = training.network.visual(torch.tensor(picture.patches), *picture.grid)[0].numpy()
        assert np.allclose(np.array(embeddings), expected, atol=1e-4)


def test_patches_are_those_of_the_processor(training: Training, tmp_path: Path) -> None:
    checkpoint.export(training.network, training.tokenizer, tmp_path)
    vision = vision_models.load_vision(tmp_path, vision_models.load_text_model(tmp_path))
    assert vision is not None
    for number in range(5):
        source = Source(number)
        pixels = scenes.pixels(scenes.draw(source, questions.see(source).scene).image)
        prepared = vision._processor([pixels], return_tensors="np", input_data_format="channels_last")
        assert np.allclose(patches(pixels, VisionShape()), prepared["pixel_values"], atol=1e-6)


def test_places_of_several_images_follow_one_another(training: Training) -> None:
    token, grid = training.pictures.image_token, (2, 3)
    ids = [1, 2, *[token] * 6, 3, *[token] * 6, 4]
    time, height, width = positions(ids, grid, token).tolist()
    assert time == [0, 1, *[2] * 6, 5, *[6] * 6, 9]
    assert height == [0, 1, 2, 2, 2, 3, 3, 3, 5, 6, 6, 6, 7, 7, 7, 9]
    assert width == [0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 7, 8, 6, 7, 8, 9]


def test_batches_are_full_and_hold_what_was_drawn(training: Training) -> None:
    feed = PictureFeed(training.pictures, Source("full"), 4)
    drawn = 0
    for _ in range(60):
        batch = feed.next()
        assert len(batch.kinds) == 4
        tokens = (batch.ids == training.pictures.image_token).sum().item()
        assert tokens == len(batch.images) * batch.grid[0] * batch.grid[1]
        drawn += len(batch.images)
    assert drawn > 60 * 4  # some rows have more than one


def test_each_letter_of_a_word_that_is_read_is_a_token(training: Training) -> None:
    for seed in range(20):
        source = Source(seed)
        question = questions.word(source)
        example = training.pictures.picture(source, [question]).example
        answer = [token for token, is_trained in zip(example.ids, example.trained, strict=True) if is_trained]
        tokens = [training.tokenizer.id_to_token(token) for token in answer]
        assert tokens[-2 - len(question.scene.text) : -2] == [*question.scene.text]
        assert training.tokenizer.decode(answer) == question.answer


def test_a_picture_that_a_tool_reads_is_asked_about_first(training: Training) -> None:
    decode = partial(training.tokenizer.decode, skip_special_tokens=False)
    for seed in range(20):
        source = Source(seed)
        question = questions.question(source)
        example = training.pictures.picture(source, [question], is_file=True).example
        text = decode(example.ids)
        trained = decode([token for token, is_trained in zip(example.ids, example.trained, strict=True) if is_trained])
        call, answer = (part.strip() for part in trained.split("<|im_end|>")[:2])
        assert call.startswith("<tool_call>") and answer == question.answer
        assert text.index(question.text) < text.index("<tool_call>") < text.index("<tool_response>\n<|vision_start|>")


@pytest.mark.parametrize(
    ("progress", "rehearsals", "parts"),
    [
        (0.1, 1.0, {"visual.blocks", "contents"}),
        (0.5, 0.0, {"visual.blocks", "visual.merger", "contents", "layers", "embed_tokens"}),
        (0.5, 1.0, {"layers", "embed_tokens"}),
    ],
    ids=["alone", "asked", "rehearsed"],
)
def test_a_step_changes_what_it_may(
    training: Training, progress: float, rehearsals: float, parts: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "seen", int(training.options.pictures * progress))
    monkeypatch.setattr(training.options, "share", rehearsals)
    before = {name: parameter.detach().clone() for name, parameter in training.network.named_parameters()}
    assert (training.step() > 0) == (rehearsals == 0 or progress < 0.14)
    changed = {name for name, parameter in training.network.named_parameters() if not parameter.equal(before[name])}
    for part in ("visual.blocks", "visual.merger", "contents", "layers", "embed_tokens"):
        assert any(name.startswith(part) for name in changed) == (part in parts), part


def test_a_rehearsal_leads_back_to_what_the_network_knew(training: Training) -> None:
    words = training.rehearsal.next(0.99)
    words.targets.fill_(IGNORED)[:64] = 5  # what nobody would answer
    with torch.no_grad():
        known = training.teacher.predictions(words.ids, words.places)[:64].softmax(-1)
        scores = training.network.predictions(words.ids, words.places)[:64]
        expected = (cross_entropy(scores, known) + cross_entropy(scores, words.targets[:64])) / 2
        assert torch.allclose(training._rehearsal(words), expected)
    assert not any(parameter.requires_grad for parameter in training.teacher.parameters())


def test_a_picture_with_its_contents_comes_patch_by_patch(training: Training) -> None:
    feed = SceneFeed(VisionShape(), Source("scenes"), 4)
    for _ in range(5):
        images, contents, grid = feed.next()
        assert images.shape[:2] == contents.shape == (4, 4 * grid[0] * grid[1])
        for patches_of_one, content in zip(images, contents, strict=True):
            spread = patches_of_one.flatten(1).std(1)
            assert spread[content > 0].mean() > spread[content == 0].mean()  # on the ground nothing changes


def test_scores_count_every_answer_once(training: Training) -> None:
    pictures = sum(len(batch.kinds) for batch in training.test)
    assert pictures == 12
    assert set(training.scores()) <= {"colour and shape", "left and above", "count", "digits", "words"}
    batch = collate([training.pictures.picture(Source(1), [questions.digits(Source(1))])])
    assert training.predictions(batch).shape[0] == len(batch.targets)
