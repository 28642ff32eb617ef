"""What is known of a checked model folder before anything is loaded."""

from dataclasses import dataclass
from pathlib import Path

from app.services.context_length import ContextLength


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that holds all a model needs, as far as can be told without reading its weights."""

    id: str
    path: Path
    model_type: str
    context: ContextLength
    weight_bytes: int
    parameters: int  # packed weights count as what they unpack to
    precision: str  # "float32", "bfloat16", "4-bit", "mxfp4"
    created: int  # seconds since 1970
    has_chat_template: bool
