"""LoRA adapters, as llama.cpp lists and sets them."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta
from pydantic import Field

from app.dto.shared.base import Body, Reply
from app.services.facts import AdapterFacts


class AdapterScale(Body):
    """The scale of an adapter: 1 as it was trained, 0 turns it off."""

    id: int = Field(ge=0, lt=2**31, description="number of the adapter, as GET /lora-adapters lists it")
    scale: float = Field(
        ge=-100, le=100, description="factor on what the adapter adds; 1 as it was trained, 0 turns it off"
    )


def scales(adapters: Sequence[AdapterScale]) -> dict[int, float]:
    """Give the scales by number; of an adapter that is named twice, the last one."""
    return {adapter.id: adapter.scale for adapter in adapters}


class AdapterReply(Reply, kw_only=True):
    """An adapter, and its scale where a request names none."""

    id: Annotated[int, Meta(description="number of the adapter, in the order of --lora")]
    path: Annotated[str, Meta(description="folder of the adapter")]
    scale: Annotated[float, Meta(description="its factor where a request names none; 1 as it was trained, 0 is off")]
    task_name: Annotated[str, Meta(description="always empty; llama-server's field")] = ""
    prompt_prefix: Annotated[str, Meta(description="always empty; llama-server's field")] = ""

    @classmethod
    def of(cls, facts: AdapterFacts) -> "AdapterReply":
        """Build it from an adapter's facts."""
        return cls(id=facts.number, path=str(facts.path), scale=facts.scale)


class AdaptersSet(Reply, kw_only=True):
    """The scales are set."""

    success: Annotated[bool, Meta(description="always true")] = True
