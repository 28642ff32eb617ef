"""Makes the values that prompts with images are compared with, by PyTorch and transformers, which no test needs.

`python -m tests.engine.make_golden_images qwen3_vl` reads the configuration of a tiny model and of its images from
golden_images/qwen3_vl.json, and writes the rest of that file: the names and shapes of the weights, as transformers
saves them, and what a model of these weights answers.
"""

import inspect
import json
import sys
import tempfile
from functools import partial
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText
from transformers.models.lfm2_vl.processing_lfm2_vl import Lfm2VlProcessor
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from app.services.engine.vision.lfm2_images import LFM2Images
from tests import vision_models

# Texts and images of a prompt: the number of tokens, or seed, width and height.
_CASES: list[list[Any]] = [[9, [1, 40, 30], 6], [9], [3, [2, 24, 24], 5, [3, 40, 16], 19], [30, [4, 33, 50], 2]]


class Oracle:
    """A tiny model of PyTorch's, whose weights are drawn as the tests draw them."""

    def __init__(self, golden: dict[str, Any], folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(golden["config"]))
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder)).float()
        model.save_pretrained(folder / "saved")
        with safe_open(folder / "saved" / "model.safetensors", "np") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in sorted(file.keys())}
        self.shapes = _as_on_the_hub(golden["config"]["model_type"], shapes)
        vision_models.write(folder, golden | {"shapes": self.shapes})
        self.model, report = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        wrong = {kind: names for kind, names in report.items() if names}
        assert not wrong, wrong
        self.processor = _processor(golden["config"], folder)
        self.image_token = vision_models.image_token(golden["config"])
        self.texts = Texts(golden, folder, self.processor)
        self._takes = inspect.signature(self.model.forward).parameters

    @torch.no_grad()
    def case(self, parts: list[Any], rng: numpy.random.Generator) -> dict[str, Any]:
        """Answer a prompt greedily."""
        pictures = [part for part in parts if not isinstance(part, int)]
        prepared = [self._prepared(picture) for picture in pictures]
        runs = [self.texts.tokens(each) for each in prepared]  # None where an image is no more than its tokens
        inputs = [{name: value for name, value in each.items() if name in self._takes} for each in prepared]
        features = [self._features(*each) for each in zip(inputs, runs, strict=True)]
        lengths = iter(map(len, features))
        prompt: list[int] = []
        for part in parts:
            text = isinstance(part, int)
            prompt += rng.integers(2, 88, part).tolist() if text else [self.image_token] * next(lengths)
        merged = {name: _stacked([each[name] for each in inputs]) for name in (inputs[0] if inputs else ())}
        logits, tokens = self._answer(self._written(prompt, runs), merged)
        if self.image_token in tokens:  # of which PyTorch would take one for another image
            return self.case(parts, rng)
        return {
            "prompt": prompt,
            "pictures": pictures,
            "features": [_rounded(vision_models.some(each.flatten())) for each in features],
            "logits": _rounded(logits[:12]),
            "tokens": tokens,
        }

    def _prepared(self, picture: list[int]) -> dict[str, Any]:
        pixels = vision_models.picture(*picture)
        more = {"return_row_col_info": True} if hasattr(self.processor, "return_row_col_info") else {}
        prepared = dict(self.processor([pixels], return_tensors="pt", input_data_format="channels_last", **more))
        if "spatial_shapes" in prepared:
            self._use_our_pixels(pixels, prepared)
        return prepared

    def _use_our_pixels(self, pixels: Any, prepared: dict[str, Any]) -> None:
        """Have the tower see what Pillow makes of an image: torchvision rounds some numbers to a neighbour of 255."""
        ours = LFM2Images.from_dict(vision_models.golden("lfm2_vl")["processor"])([pixels])
        assert ours["spatial_shapes"].tolist() == prepared["spatial_shapes"].tolist()
        tiles = numpy.split(ours["pixel_values"], numpy.cumsum(ours["spatial_shapes"].prod(axis=1))[:-1])
        for theirs, own in zip(prepared["pixel_values"], tiles, strict=True):
            assert (theirs[: len(own)] - torch.tensor(own)).abs().max() < 2.01 / 255
            theirs[: len(own)] = torch.tensor(own)

    def _features(self, inputs: dict[str, Any], run: list[int] | None) -> Any:
        """Give what stands for an image (tokens, width), with what is added in the first layers behind it."""
        output = self.model.get_image_features(**inputs)
        deep = getattr(output, "deepstack_features", None) or []
        features = _joined(output.pooler_output)
        if run is not None:
            tokens = torch.tensor(run)
            whole = self.model.get_input_embeddings()(tokens).clone()
            whole[tokens == self.image_token] = features
            features = whole
        return torch.stack([features, *map(_joined, deep)], dim=1).numpy()

    def _written(self, prompt: list[int], runs: list[list[int] | None]) -> list[int]:
        """Give a prompt as PyTorch's model has it, in which texts stand within images."""
        written, place = list(prompt), 0
        for run in runs:
            if run is not None:
                place = prompt.index(self.image_token, place)
                written[place : place + len(run)] = run
                place += len(run)
        return written

    def _answer(self, prompt: list[int], images: dict[str, Any]) -> tuple[Any, list[int]]:
        tokens = list(prompt)
        first = None
        for _ in range(8):
            kinds = [int(token == self.image_token) for token in tokens]
            inputs = {"input_ids": torch.tensor([tokens]), "attention_mask": torch.ones(1, len(tokens)).long()}
            named = {name: torch.tensor([kinds]) for name in ("mm_token_type_ids", "token_type_ids")}
            inputs |= {name: value for name, value in named.items() if name in self._takes}
            logits = self.model(**inputs, **images, use_cache=False).logits[0, -1].numpy()
            first = logits if first is None else first
            tokens.append(int(logits.argmax()))
            if tokens[-1] == self.image_token:
                break
        return first, tokens[len(prompt) :]


class Texts:
    """The texts within images, as the processors of prompts write them."""

    def __init__(self, golden: dict[str, Any], folder: Path, processor: Any) -> None:
        self._golden = golden
        self._processor = processor
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json")) if "tokens" in golden else None

    def tokens(self, prepared: dict[str, Any]) -> list[int] | None:
        """Give the tokens of an image with its texts; None for families without any."""
        if self._tokenizer is None:
            return None
        config = self._golden["config"]
        if config["vision_config"]["model_type"] == "pixtral":
            sides = self._processor.patch_size
            rows, columns = (int(prepared["image_sizes"][0][n]) // sides[name] for n, name in enumerate(sides))
            text = "[IMG_BREAK]".join(["[IMG]" * columns] * rows) + "[IMG_END]"
            return list(self._tokenizer.encode(text).ids)
        is_lfm2 = config["model_type"] == "lfm2_vl"
        text = _lfm2_text(self._processor, prepared) if is_lfm2 else self._idefics_text(prepared)
        return list(self._tokenizer.encode(text).ids)[1:-1]  # what stands around an image belongs to the text

    def _idefics_text(self, prepared: dict[str, Any]) -> str:
        vision, scale = self._golden["config"]["vision_config"], self._golden["config"]["scale_factor"]
        tokens = (vision["image_size"] // vision["patch_size"] // scale) ** 2
        names = "<fake_token_around_image>", "<image>", "<global-img>"
        return str(get_image_prompt_string(prepared["rows"][0][0], prepared["cols"][0][0], tokens, *names))


def _lfm2_text(processor: Any, prepared: dict[str, Any]) -> str:
    writer = SimpleNamespace(
        image_processor=processor,
        image_token="<image>",
        image_start_token="<|image_start|>",
        image_end_token="<|image_end|>",
        image_thumbnail_token="<|img_thumbnail|>",
    )
    counts = ("_get_image_num_tokens", "_compute_tokens_per_tile", "_compute_tokens_for_image")
    for name in ("_build_image_tokens", *counts):
        setattr(writer, name, partial(getattr(Lfm2VlProcessor, name), writer))
    return str(Lfm2VlProcessor.replace_image_token(writer, prepared, 0, use_image_special_tokens=True))


def _processor(config: dict[str, Any], folder: Path) -> Any:
    """Give the processor of images: that of LFM2-VL needs torchvision."""
    if config["model_type"] == "lfm2_vl":
        return AutoImageProcessor.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    if config["model_type"] in ("idefics3", "smolvlm"):
        processor.do_pad = False  # tiles are all of one size
    if (merge := _row_merge(config)) is not None:
        patch = config["vision_config"]["patch_size"]
        processor.patch_size = dict.fromkeys(("height", "width"), patch * merge)
    return processor


def _row_merge(config: dict[str, Any]) -> int | None:
    """Say how many patches a token has a side, where rows of tokens end with one more; None for other families."""
    return config.get("spatial_merge_size", 1) if config["vision_config"].get("model_type") == "pixtral" else None


def _stacked(arrays: list[Any]) -> Any:
    """Give what was prepared of several images as one array, smaller images padded."""
    shapes = [each.shape for each in arrays]
    if arrays[0].dim() == 5:  # tiles of one prompt
        return torch.cat(arrays, dim=1)
    if len(set(shapes)) > 1 and arrays[0].dim() == 4:
        most = [max(sides) for sides in zip(*shapes, strict=True)]
        pad = torch.nn.functional.pad
        arrays = [pad(each, (0, most[3] - each.shape[3], 0, most[2] - each.shape[2])) for each in arrays]
    return torch.cat(arrays)


def _as_on_the_hub(model_type: str, shapes: dict[str, list[int]]) -> dict[str, list[int]]:
    """Give the experts the names and shapes of the checkpoints that there are; transformers reads both."""
    if model_type == "qwen3_vl_moe":
        return {name: [*shape[:-2], *shape[:-3:-1]] if ".experts." in name else shape for name, shape in shapes.items()}
    if model_type != "qwen3_5_moe":
        return shapes
    whole = {name: shape for name, shape in shapes.items() if ".experts." not in name}
    for name, (inner, hidden) in (
        (name, shape) for name, shape in shapes.items() if name.endswith(".gate_proj.weight")
    ):
        layer, is_expert, number = name.removesuffix(".gate_proj.weight").partition(".experts.")
        if is_expert:
            whole[f"{layer}.experts.gate_up_proj"] = [int(number) + 1, 2 * inner, hidden]
            whole[f"{layer}.experts.down_proj"] = [int(number) + 1, hidden, inner]
    return whole


def _joined(features: Any) -> Any:
    """Give the features (tokens, width) of one image, which some families give for each image by itself."""
    joined = torch.cat(list(features)) if isinstance(features, (list, tuple)) else features
    return joined.reshape(-1, joined.shape[-1])


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 5) for value in values]


def main() -> None:
    for name in sys.argv[1:]:
        path = vision_models.GOLDEN / f"{name}.json"
        golden = json.loads(path.read_text())
        with tempfile.TemporaryDirectory() as folder:
            oracle = Oracle(golden, Path(folder))
            rng = numpy.random.default_rng(7)
            golden |= {"shapes": oracle.shapes, "cases": [oracle.case(parts, rng) for parts in _CASES]}
        parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items() if key != "cases"]
        cases = ",\n".join(json.dumps(case) for case in golden["cases"])
        path.write_text("{" + ",\n".join([*parts, f'"cases": [\n{cases}]']) + "}\n")
        for key, cases_of in groupby(golden["cases"], lambda case: tuple(case["tokens"])):
            print(name, [len(case["prompt"]) for case in cases_of], key)


if __name__ == "__main__":
    main()
