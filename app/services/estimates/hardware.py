"""What this machine has for models."""

from dataclasses import dataclass

from app.services import free_memory
from app.services.facts import DeviceFacts
from app.services.inference import Engine


@dataclass(frozen=True, slots=True)
class Hardware:
    """Memory in bytes, at the moment."""

    total: int
    available: int
    device: DeviceFacts | None  # the GPU, if the engine computes with one
    held: int  # by what is loaded here: another model would get it


def read(engine: Engine) -> Hardware:
    """Look what there is."""
    return Hardware(free_memory.total(), free_memory.available(), engine.device, held=sum(engine.meter.memory[:2]))
