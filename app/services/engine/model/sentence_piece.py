"""Has a tokenizer that transformers made of a tokenizer.model split text as SentencePiece itself does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sentencepiece
import structlog
from tokenizers import Regex, decoders, normalizers

log = structlog.get_logger()

_SPACE = "▁"
# What the ways of making a tokenizer differ in: the space before a text, several spaces, lines, bytes.
_SAMPLES = ("Hello world", " two  spaces", "a:\n    b\n\n c", "größer 你好 🙂", "12.5 (x)")


def follow_model_file(folder: Path, tokenizer: Any) -> None:
    """Compare a tokenizer with the folder's tokenizer.model, and mend how it treats spaces.

    It is left alone where the folder has a tokenizer.json, which says everything, or where the file is of another kind.
    transformers goes by the class that tokenizer_config.json names, while the file itself says whether a text gets a
    space before it, as nearly all of the kind of Llama 2 do.
    """
    path = folder / "tokenizer.model"
    if (folder / "tokenizer.json").exists() or not path.exists() or not hasattr(tokenizer, "backend_tokenizer"):
        return
    try:
        own = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except RuntimeError:  # Llama 3's is a table of tiktoken
        return
    if not _differs(own, tokenizer):
        return
    backend, spec = tokenizer.backend_tokenizer, _spec(path)
    backend.normalizer = normalizers.Sequence(list(_normalizers(spec)))
    backend.pre_tokenizer = None
    strip = [decoders.Strip(" ", 1, 0)] if spec.add_dummy_prefix else []
    parts = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    backend.decoder = decoders.Sequence(parts)
    if text := _differs(own, tokenizer):
        log.warning("the tokenizer splits some texts unlike the model's own", folder=folder.name, text=text)


def _differs(own: sentencepiece.SentencePieceProcessor, tokenizer: Any) -> str | None:
    """Give a text that the two split into different tokens."""
    same = (own.encode(text) == tokenizer.encode(text, add_special_tokens=False) for text in _SAMPLES)
    return next((text for text, is_same in zip(_SAMPLES, same, strict=True) if not is_same), None)


def _spec(path: Path) -> Any:
    from sentencepiece import sentencepiece_model_pb2  # takes protobuf, which few models need

    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString(path.read_bytes())
    return model.normalizer_spec


def _normalizers(spec: Any) -> Iterator[Any]:
    """Give the steps before a text is split, in SentencePiece's order."""
    if spec.precompiled_charsmap:
        yield normalizers.Precompiled(spec.precompiled_charsmap)
    if spec.remove_extra_whitespaces:
        yield normalizers.Replace(Regex(r"\A +| +\z"), "")
        yield normalizers.Replace(Regex(" {2,}"), " ")
    if spec.add_dummy_prefix:
        yield normalizers.Prepend(_SPACE)
    yield normalizers.Replace(" ", _SPACE)
