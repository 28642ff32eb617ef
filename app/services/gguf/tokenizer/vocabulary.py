"""The vocabulary of a GGUF: its tokens and what each is for, checked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.services.errors import LoadFailed
from app.services.gguf.tokenizer.pretokenizers import PRE_TOKENIZERS

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
MODELS = ("llama", "gpt2", "gemma4")
_INSTEAD = "get an MLX build of this model (a folder with config.json and safetensors) instead"
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


def check(metadata: Mapping[str, Any]) -> None:
    """Raise LoadFailed for a tokenizer that is not known, without reading its tokens."""
    model, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre", "")
    if model is None:
        raise LoadFailed(f"the file has no tokenizer (tokenizer.ggml.model): {_INSTEAD}")
    if model not in MODELS:
        raise LoadFailed(f"its tokenizer is of the kind {model!r}, not {' or '.join(MODELS)}: {_INSTEAD}")
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
        count = len(self.tokens)
        if len(self.ids) != count:
            raise LoadFailed("its tokenizer has the same token twice (tokenizer.ggml.tokens): the file is damaged")
        for name in ("token_type", "scores"):
            values = self.metadata.get(f"tokenizer.ggml.{name}")
            if values is not None and len(values) != count:
                raise LoadFailed(f"its tokenizer has {count} tokens but {len(values)} of tokenizer.ggml.{name}")

    @property
    def model(self) -> str:
        """The kind of tokenizer: one of MODELS."""
        return str(self.metadata["tokenizer.ggml.model"])

    @property
    def pre(self) -> str:
        """The name of how text is split before merging; empty where the file has none."""
        return str(self.metadata.get("tokenizer.ggml.pre", ""))

    @cached_property
    def tokens(self) -> list[str]:
        """Texts by id; one that is empty gets a name of its own."""
        texts = self.metadata["tokenizer.ggml.tokens"]
        return [text or f"[EMPTY_{index}]" for index, text in enumerate(texts)]

    @cached_property
    def ids(self) -> dict[str, int]:
        """Ids by text."""
        return {text: index for index, text in enumerate(self.tokens)}

    @cached_property
    def types(self) -> list[int]:
        """What each token is; those that end an answer are control tokens, whatever the file says."""
        types = self.metadata.get("tokenizer.ggml.token_type")
        kinds = [NORMAL] * len(self.tokens) if types is None else [int(kind) for kind in types]
        for token in self._ends_by_text:
            kinds[token] = CONTROL
        return kinds

    def special(self, name: str) -> int | None:
        """Give the id of bos, eos, eot, eom, unknown or padding; None where there is none."""
        token = self.metadata.get(f"tokenizer.ggml.{name}_token_id", _DEFAULT_IDS.get(self.model, {}).get(name))
        return int(token) if token is not None and 0 <= token < len(self.tokens) else None

    def flag(self, name: str, default: bool) -> bool:
        """Give a flag of the file (add_bos_token …), or llama.cpp's default."""
        return bool(self.metadata.get(f"tokenizer.ggml.{name}", default))

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
        types = self.metadata.get("tokenizer.ggml.token_type")
        token = self.ids.get("</s>")
        if token is not None and ("<|tool_response>" in ends or types is None or types[token] != CONTROL):
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
