"""What is known of a checked model before anything is loaded: of a folder, or of a GGUF file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.services.context_length import ContextLength

Task = Literal["completion", "embedding", "rerank"]


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that holds all a model needs, as far as can be told without reading its weights; or such a file."""

    id: str
    path: Path  # of the folder, or of the GGUF file: its first shard
    model_type: str
    context: ContextLength
    weight_bytes: int
    parameters: int  # packed weights count as what they unpack to
    precision: str  # "float32", "bfloat16", "4-bit", "mxfp4", "Q4_K_M"
    created: int  # seconds since 1970
    has_chat_template: bool
    is_gguf: bool = False
    task: Task = "completion"  # what it was made for
    is_encoder: bool = False  # it reads a text as a whole and writes none
    sees: bool = False  # it has what reads images
    mmproj: Path | None = None  # the file that a GGUF file sees with
    vision_problem: str | None = None  # why a vision part that is there is not used
