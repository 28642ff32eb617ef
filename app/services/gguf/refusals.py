"""Which files are no language models, as their first bytes or their metadata say: one sentence, with what to do."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.services.files import bad

START_BYTES = 64
_MAGIC = b"GGUF"
_OLD = "is a GGML file from before August 2023; take the model as GGUF, which has replaced it."
_PAGE = "is a web page, not a model; download the file itself, as with `tiles-server pull`."
_ARCHIVE = "is a ZIP archive, or PyTorch weights, no GGUF file; take the model as GGUF."
_STARTS = {
    b"version https://git-lfs": "is a Git LFS pointer, not the model; fetch that with `git lfs pull`.",
    b"lmgg": _OLD,
    b"fmgg": _OLD,
    b"tjgg": _OLD,
    b"algg": _OLD,
    b"FUGG": "is a big-endian GGUF file; take one that is little-endian, as nearly all are.",
    b"PK\x03\x04": _ARCHIVE,
    b"<!DOCTYPE": _PAGE,
    b"<!doctype": _PAGE,
    b"<html": _PAGE,
}
_ADVICE = "give the language model instead."
_VISION = f"is the vision part (mmproj) of a model; {_ADVICE}"
_DRAFTER = f"is a drafter for speculative decoding, of no use by itself; {_ADVICE}"
_PICTURES = "is a model that makes pictures or films (architecture {!r}); this server has language models only."
_SOUND = "is a model for sound (architecture {!r}); this server has language models only."
_TYPES = {
    "adapter": "is a LoRA adapter as GGUF; take it in the format of MLX, and give the model it belongs to.",
    "imatrix": f"is an importance matrix, made to quantize a model; {_ADVICE}",
    "mmproj": _VISION,
    "projector": _VISION,
    "vocab": f"is a vocabulary without weights; {_ADVICE}",
}
_ARCHITECTURES = {
    "clip": _VISION,
    "imatrix": _TYPES["imatrix"],
    "controlvector": f"is a control vector, not a model; {_ADVICE}",
    **dict.fromkeys(("gemma4-assistant", "gemma4_assistant", "eagle3", "dflash"), _DRAFTER),
    **dict.fromkeys(("aura", "cosmos", "flux", "hidream", "hyvid", "ltxv", "lumina2", "pig", "qwen_image"), _PICTURES),
    **dict.fromkeys(("sd1", "sd2", "sd3", "sdxl", "sd_xl", "stable-diffusion", "wan", "z_image"), _PICTURES),
    **dict.fromkeys(("wavtokenizer-dec", "whisper", "qwen3tts", "pockettts"), _SOUND),
}


def check_start(path: Path, start: bytes, size: int) -> None:
    """Refuse a file whose first bytes are none of a GGUF file that can be read. Raises LoadFailed."""
    if not start:
        raise bad(path, "is empty. Download it again.")
    for magic, reason in _STARTS.items():
        if start.startswith(magic):
            raise bad(path, reason)
    if not start.startswith(_MAGIC[: len(start)]):
        raise bad(path, "is no GGUF file.")
    if size < 24:
        raise bad(path, "is cut short: its header is not all there. Download it again.")
    version = int.from_bytes(start[4:8], "little")
    if version & 0xFFFF == 0:
        raise bad(path, _STARTS[b"FUGG"])
    if version not in (2, 3):
        change = "convert the model anew" if version < 2 else "it may be too new for this server"
        raise bad(path, f"is a GGUF file of version {version}; versions 2 and 3 can be read ({change}).")


def check_kind(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """Refuse a file that is no language model. Raises LoadFailed."""
    if (reason := kind(metadata, tensors)) is not None:
        raise bad(path, reason)


def kind(metadata: Mapping[str, Any], tensors: Mapping[str, Any]) -> str | None:
    """Say what a file is if it is no language model, and what to do; None for a language model."""
    architecture, general = metadata.get("general.architecture"), metadata.get("general.type")
    for key, table in ((general, _TYPES), (architecture, _ARCHITECTURES)):
        if isinstance(key, str) and key in table:
            return table[key].format(architecture)
    if not isinstance(architecture, str) or not architecture:
        return "does not say its architecture, so it is no language model of llama.cpp."
    if not tensors:
        return _TYPES["vocab"]
    return None
