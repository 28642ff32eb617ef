"""What the models of one engine may use."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.services.facts import KVBits
from app.services.generation import ToolCallGrammar
from app.services.hostfile import GroupConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What the models of one engine may use, alone or together."""

    max_rows: int = 32  # answers of one model that are computed side by side
    max_models: int = 1  # that are loaded at a time; they share `cache_bytes`
    cache_bytes: int | None = None  # of all prefix caches together; None is a quarter of what is free
    context_length: int | None = None  # tokens; None is the model's own
    max_memory: int | None = None  # bytes for everything; None is what the machine has
    kv_bits: KVBits | None = None  # that older tokens in KV caches are rounded to, where that is possible
    max_lookup_tokens: int | None = 0  # of prompt lookup at a time; 0 turns it off, None has it where text is copied
    stop_repetition: bool = True  # end an answer that only repeats itself
    image_tokens: int = 1280  # that an image has at most, for models whose images have more the larger they are
    mmproj: Path | None = None  # the file that a GGUF file sees with; None is one that lies beside it
    fetches_images: bool = False  # from public addresses, where requests have URLs of them
    tool_call_grammar: ToolCallGrammar = "lazy"  # where a request does not say
    store_folder: Path | None = None  # of the prefix cache on disk; None is none
    store_bytes: int = 0  # of that folder, of all models together; 0 is none
    blas: str = "auto"  # that MLX computes with on the Linux CPU, as `blas.preload` takes it
    adapters: Sequence[tuple[Path, float]] = ()  # folders, and their scale where a request says nothing
    gguf_folder: Path | None = None  # of what GGUF files become; None is none, so that they cannot be loaded
    gguf_bytes: int = 0  # of that folder; 0 keeps nothing
    group: GroupConfig | None = None  # the machines that serve the model together; None is this one alone
