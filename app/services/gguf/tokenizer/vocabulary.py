"""The vocabulary of a GGUF: its tokens and what each is for, checked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from app.services.errors import LoadFailed
from app.services.gguf.tokenizer.pretokenizers import PRE_TOKENIZERS

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
MODELS = ("llama", "gpt2", "gemma4")
_INSTEAD = "get an MLX build of this model (a folder with config.json and safetensors) instead"
_OTHERS = {
    "bert": "WordPiece, of models for embeddings",
    "t5": "Unigram, of encoders and models for embeddings",
    "rwkv": "that of RWKV",
    "plamo2": "that of PLaMo 2",
    "none": "none at all",
    "no_vocab": "none at all",
}
_DEFAULT_IDS = {"llama": {"bos": 1, "eos": 2, "unknown": 0}}  # where the file names none, as llama.cpp

# Texts that llama.cpp takes for the end of an answer, whatever the file says of them.
_ENDS = frozenset(
    [
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|return|>",
        "<|call|>",
        "<|flush|>",
        "<|calls|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "</s>",
        "<|eom_id|>",
        "<EOT>",
        "_<EOT>",
        "[EOT]",
        "[EOS]",
        "<|end_of_text|>",
        "<end_of_utterance>",
        "<eos>",
        "<turn|>",
        "<|tool_response>",
        "<\uff5cend▁of▁sentence\uff5c>",
        "[e~[",
    ]
)
# The same for what stands between the files of a completion in the middle; these the file may name, too.
_FILE_ENDS = {
    "fim_pad": ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": ("<|file_sep|>",),
}
_HARMONY = ({"<|return|>", "<|call|>"}, {"<|calls|>", "<|flush|>"})  # beside these <|end|> ends a message, no answer


def damaged(what: str) -> LoadFailed:
    """Make the error that says what of a file cannot be."""
    return LoadFailed(f"{what}: the file is damaged")


def text(metadata: Mapping[str, Any], key: str) -> str:
    """Give a text; an empty one where there is none. Raises LoadFailed for anything else."""
    value = metadata.get(key, "")
    if not isinstance(value, str):
        raise damaged(f"{key} is no text")
    return value


def texts(metadata: Mapping[str, Any], key: str) -> list[str]:
    """Give a list of texts; an empty one where there is none. Raises LoadFailed for anything else."""
    value = metadata.get(key, [])
    if not isinstance(value, list):
        raise damaged(f"{key} is no list of texts")
    return value


def numbers(metadata: Mapping[str, Any], key: str, kinds: str = "iu") -> np.ndarray:
    """Give numbers (count,) of these kinds of numpy; none where there are none. Raises LoadFailed for anything else."""
    value = metadata.get(key, np.empty(0, np.int32))
    if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
        raise damaged(f"{key} is no list of numbers")
    return value


def check(metadata: Mapping[str, Any]) -> None:
    """Raise LoadFailed for a tokenizer that is not known, without reading its tokens."""
    model, pre = text(metadata, "tokenizer.ggml.model"), text(metadata, "tokenizer.ggml.pre")
    if not model:
        raise LoadFailed(f"the file has no tokenizer (tokenizer.ggml.model): {_INSTEAD}")
    if model not in MODELS:
        kind = f"of the kind {model!r}" + (f" ({_OTHERS[model]})" if model in _OTHERS else "")
        raise LoadFailed(f"its tokenizer is {kind}, not {' or '.join(MODELS)}: {_INSTEAD}")
    if model == "gpt2" and pre not in PRE_TOKENIZERS:
        raise LoadFailed(f"its tokenizer splits text as {pre!r} (tokenizer.ggml.pre), which is not known: {_INSTEAD}")
    needed = ["tokens"] + (["scores"] if model == "llama" else ["merges"])
    for name in needed:
        if f"tokenizer.ggml.{name}" not in metadata:
            raise LoadFailed(f"its tokenizer has no {name} (tokenizer.ggml.{name}): {_INSTEAD}")


@dataclass(frozen=True)
class Vocabulary:
    """A checked vocabulary. Raises LoadFailed where tokens are missing, twice there, or point nowhere."""

    metadata: Mapping[str, Any]

    def __post_init__(self) -> None:
        check(self.metadata)
        if len(self.ids) != len(self.tokens):
            raise damaged("its tokenizer has the same token twice (tokenizer.ggml.tokens)")
        if not self.tokens:
            raise damaged("its tokenizer has no tokens (tokenizer.ggml.tokens is empty)")
        for name in ("bos", "eos", "eot", "eom"):
            if (token := self._id(name)) is not None and not 0 <= token < len(self.tokens):
                raise damaged(f"its {name} token is {token}, but its tokenizer has {len(self.tokens)} tokens")

    @property
    def model(self) -> str:
        """The kind of tokenizer: one of MODELS."""
        return text(self.metadata, "tokenizer.ggml.model")

    @property
    def pre(self) -> str:
        """The name of how text is split before merging; empty where the file has none."""
        return text(self.metadata, "tokenizer.ggml.pre")

    @cached_property
    def tokens(self) -> list[str]:
        """Texts by id; one that is empty gets a name of its own."""
        return [
            token or f"[EMPTY_{index}]" for index, token in enumerate(texts(self.metadata, "tokenizer.ggml.tokens"))
        ]

    @cached_property
    def ids(self) -> dict[str, int]:
        """Ids by text."""
        return {token: index for index, token in enumerate(self.tokens)}

    @cached_property
    def merges(self) -> list[str]:
        """Two tokens with a space between them, in the order in which they are joined."""
        return texts(self.metadata, "tokenizer.ggml.merges")

    @cached_property
    def scores(self) -> np.ndarray:
        """The score of each token: (tokens,), float64."""
        return self._by_token("scores", "iuf").astype(np.float64)

    def _by_token(self, name: str, kinds: str = "iu") -> np.ndarray:
        values = numbers(self.metadata, f"tokenizer.ggml.{name}", kinds)
        if len(values) != len(self.tokens):
            raise damaged(f"its tokenizer has {len(self.tokens)} tokens but {len(values)} of tokenizer.ggml.{name}")
        return values

    @cached_property
    def _types(self) -> list[int]:
        if "tokenizer.ggml.token_type" not in self.metadata:
            return [NORMAL] * len(self.tokens)
        return [int(kind) for kind in self._by_token("token_type")]

    @cached_property
    def types(self) -> list[int]:
        """What each token is; those that end an answer are control tokens, whatever the file says."""
        kinds = list(self._types)
        for token in self._ends_by_text:
            kinds[token] = CONTROL
        return kinds

    def special(self, name: str) -> int | None:
        """Give the id of bos, eos, eot, eom, unknown or padding; None where there is none."""
        token = self._id(name)
        return token if token is not None and 0 <= token < len(self.tokens) else None

    def _id(self, name: str) -> int | None:
        key = f"tokenizer.ggml.{name}_token_id"
        token = self.metadata.get(key)
        if token is None:
            default = _DEFAULT_IDS.get(self.model, {}).get(name, -1)
            return default if 0 <= default < len(self.tokens) else None
        if type(token) is not int:
            raise damaged(f"{key} is no number of a token")
        return token

    def flag(self, name: str, default: bool) -> bool:
        """Give a flag of the file (add_bos_token …), or llama.cpp's default."""
        key = f"tokenizer.ggml.{name}"
        value = self.metadata.get(key, default)
        if not isinstance(value, bool | int):
            raise damaged(f"{key} is neither true nor false")
        return bool(value)

    @property
    def stop_tokens(self) -> list[int]:
        """The ids that end an answer: those that the file names, and those known by their text."""
        named = {token for name in ("eos", "eot", "eom") if (token := self.special(name)) is not None}
        return sorted(named | self._ends_by_text)

    @cached_property
    def _ends_by_text(self) -> set[int]:
        """The ids of texts that end an answer. `</s>` does so only as a control token: Qwen has it as plain text."""
        ends = {text for text in _ENDS if text in self.ids}
        if any(texts <= ends for texts in _HARMONY):
            ends.discard("<|end|>")
        token = self.ids.get("</s>")
        if token is not None and ("<|tool_response>" in ends or self._types[token] != CONTROL):
            ends.discard("</s>")
        return {self.ids[text] for text in ends} | set(self._file_ends)

    @property
    def _file_ends(self) -> Iterator[int]:
        for name, texts in _FILE_ENDS.items():
            token = self.special(name)
            if token is None:
                token = next((self.ids[text] for text in texts if text in self.ids), None)
            if token is not None:
                yield token
