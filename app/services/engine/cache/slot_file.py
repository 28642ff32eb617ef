"""Saves the KV cache of one slot to a file that a client names, and restores it."""

import base64
import os
import secrets
from pathlib import Path

import mlx.core as mx
import numpy as np
import structlog
from mlx_lm.models.cache import load_prompt_cache, save_prompt_cache

from app.services import atomic
from app.services.atomic import private_file, private_folder
from app.services.engine.cache.layers import Layers, storable
from app.services.engine.cache.prefixes import TokenArray
from app.services.errors import SlotNotRestored, SlotNotWritten

log = structlog.get_logger()

_VERSION = "1"


def write(path: Path, fingerprint: str, tokens: TokenArray, layers: Layers) -> int:
    """Write tokens and their layers, whole or not at all. Returns the file's bytes. Raises SlotNotWritten."""
    if not storable(layers):
        log.warning("slot not written", reason="mlx-lm cannot read a cache of this model from a file")
        raise SlotNotWritten
    metadata = {
        "version": _VERSION,
        "model": fingerprint,
        "tokens": base64.b64encode(tokens.tobytes()).decode(),
    }
    temporary = path.with_name(f"{atomic.unfinished_name(path.name)}{secrets.token_hex(4)}.safetensors")
    try:
        private_folder(path.parent)
        private_file(temporary).close()  # MLX keeps the mode of what is there
        save_prompt_cache(str(temporary), layers.caches, metadata)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        size = temporary.stat().st_size
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # MLX says RuntimeError of a full disk
        log.warning("slot not written", reason=str(error)[:200])
        raise SlotNotWritten from None
    finally:
        temporary.unlink(missing_ok=True)
    return size


def read(path: Path, fingerprint: str) -> tuple[list[int], Layers, int]:
    """Read tokens, their layers, and the file's bytes. Raises SlotNotRestored if it is no such file of this model."""
    try:
        size = path.stat().st_size
        caches, metadata = load_prompt_cache(str(path), return_metadata=True)
        if (metadata["version"], metadata["model"]) != (_VERSION, fingerprint):
            raise ValueError("it was saved with another model or another version")
        tokens = np.frombuffer(base64.b64decode(metadata["tokens"]), dtype=np.int32)
        mx.eval([cache.state for cache in caches])
    except Exception as error:  # whatever is wrong with it, it cannot be restored
        log.info("slot not restored", reason=str(error)[:200])
        raise SlotNotRestored from None
    return [int(token) for token in tokens], Layers(caches), size
