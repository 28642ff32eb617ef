"""Makes the values that prompts with images are compared with, by PyTorch and transformers, which no test needs.

`python -m tests.engine.make_golden_images qwen3_vl` reads the configuration of a tiny model and of its images from
golden_images/qwen3_vl.json, and writes the rest of that file: the names and shapes of the weights, as transformers
saves them, and what a model of these weights answers.
"""

import inspect
import json
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText

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
        self.processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        self.image_token = vision_models.image_token(golden["config"])
        self.merge = _row_merge(golden["config"])
        if self.merge is not None:
            patch = golden["config"]["vision_config"]["patch_size"]
            self.processor.patch_size = dict.fromkeys(("height", "width"), patch * self.merge)
        self._takes = inspect.signature(self.model.forward).parameters

    @torch.no_grad()
    def case(self, parts: list[Any], rng: numpy.random.Generator) -> dict[str, Any]:
        """Answer a prompt greedily."""
        pictures = [part for part in parts if not isinstance(part, int)]
        inputs = [self._inputs(picture) for picture in pictures]
        features = [self._features(each) for each in inputs]
        lengths = iter(map(len, features))
        prompt: list[int] = []
        for part in parts:
            text = isinstance(part, int)
            prompt += rng.integers(2, 88, part).tolist() if text else [self.image_token] * next(lengths)
        merged = {name: _stacked([each[name] for each in inputs]) for name in (inputs[0] if inputs else ())}
        logits, tokens = self._answer(self._written(prompt, inputs), merged)
        if self.image_token in tokens:  # of which PyTorch would take one for another image
            return self.case(parts, rng)
        return {
            "prompt": prompt,
            "pictures": pictures,
            "features": [_rounded(vision_models.some(each.flatten())) for each in features],
            "logits": _rounded(logits[:12]),
            "tokens": tokens,
        }

    def _inputs(self, picture: list[int]) -> dict[str, Any]:
        pixels = vision_models.picture(*picture)
        inputs = self.processor([pixels], return_tensors="pt", input_data_format="channels_last")
        return {name: value for name, value in inputs.items() if name in self._takes}

    def _features(self, inputs: dict[str, Any]) -> Any:
        """Give what stands for an image (tokens, width), with what is added in the first layers behind it."""
        output = self.model.get_image_features(**inputs)
        deep = getattr(output, "deepstack_features", None) or []
        features = _joined(output.pooler_output)
        if self.merge is not None:  # each row has one token more, which is text
            ends = self.model.get_input_embeddings()(torch.tensor(self._row_ends(inputs)))[:, None]
            rows = features.reshape(len(ends), -1, features.shape[-1])
            features = torch.cat([rows, ends], dim=1).flatten(0, 1)
        return torch.stack([features, *map(_joined, deep)], dim=1).numpy()

    def _row_ends(self, inputs: dict[str, Any]) -> list[int]:
        """Give the tokens that end the rows of an image: [IMG_BREAK], and [IMG_END] for the last."""
        side = self.processor.patch_size["height"]
        rows = int(inputs["image_sizes"][0][0]) // side
        return [self.image_token + 2] * (rows - 1) + [self.image_token + 3]

    def _written(self, prompt: list[int], inputs: list[dict[str, Any]]) -> list[int]:
        """Give a prompt as PyTorch's model has it, in which rows of images end with other tokens."""
        if self.merge is None:
            return prompt
        written, place = list(prompt), 0
        for each in inputs:
            place = prompt.index(self.image_token, place)
            columns = int(each["image_sizes"][0][1]) // self.processor.patch_size["width"]
            for end in self._row_ends(each):
                place += columns
                written[place] = end
                place += 1
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


def _row_merge(config: dict[str, Any]) -> int | None:
    """Say how many patches a token has a side, where rows of tokens end with one more; None for other families."""
    return config.get("spatial_merge_size", 1) if config["vision_config"].get("model_type") == "pixtral" else None


def _stacked(arrays: list[Any]) -> Any:
    """Give what was prepared of several images as one array, smaller images padded."""
    shapes = [each.shape for each in arrays]
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
