"""What the machine has for models, and what a model takes of it."""

from typing import Annotated

from msgspec import Meta
from pydantic import Field, model_validator

from app.dto.shared.base import Body, Reply
from app.services.estimates.estimator import Estimate
from app.services.estimates.hardware import Hardware


class DeviceReply(Reply, kw_only=True):
    """A GPU."""

    id: Annotated[str, Meta(description="id of the GPU")]
    name: Annotated[str, Meta(description="name of the GPU")]
    total_bytes: Annotated[int, Meta(description="bytes of memory that models may take of it")]
    free_bytes: Annotated[int, Meta(description="bytes of these that this server does not hold")]
    integrated: Annotated[bool, Meta(description="always false: MLX computes with no GPU that borrows memory slowly")]
    reclaimable_bytes: Annotated[int, Meta(description="bytes that what is loaded here holds: another model gets them")]


class MemoryReply(Reply, kw_only=True):
    """The memory of the machine."""

    total_bytes: Annotated[int, Meta(description="bytes of memory of the machine")]
    available_bytes: Annotated[int, Meta(description="bytes of memory that can be taken now")]


class HardwareReply(Reply, kw_only=True):
    """What the machine has for models."""

    devices: Annotated[list[DeviceReply], Meta(description="the GPU; empty where the CPU computes")]
    memory: Annotated[MemoryReply, Meta(description="memory of the machine")]

    @classmethod
    def of(cls, hardware: Hardware) -> "HardwareReply":
        """Translate what there is."""
        memory = MemoryReply(total_bytes=hardware.total, available_bytes=hardware.available)
        if (device := hardware.device) is None:
            return cls(devices=[], memory=memory)
        reply = DeviceReply(
            id="GPU0",
            name=device.name,
            total_bytes=device.total_bytes,
            free_bytes=max(0, device.total_bytes - hardware.held),
            integrated=False,
            reclaimable_bytes=hardware.held,
        )
        return cls(devices=[reply], memory=memory)


class EstimateRequest(Body):
    """A model whose size is asked for: a file on a hub, or a model of this machine."""

    url: str | None = Field(
        default=None,
        max_length=4096,
        examples=["https://hub.example/unsloth/gemma-4-12b-it-GGUF/resolve/main/gemma-4-12b-it-Q4_K_M.gguf"],
        description="https address of a GGUF file, whose header is read",
    )
    size: int | None = Field(default=None, ge=0, lt=2**63, description="bytes of that file")
    model: str | None = Field(
        default=None, max_length=4096, description="instead of `url`: name or path of a model on this machine"
    )

    @model_validator(mode="after")
    def _name_one(self) -> "EstimateRequest":
        if bool(self.url) == bool(self.model):
            raise ValueError("give either url or model")
        return self


class EstimateReply(Reply, kw_only=True):
    """What a model takes, in bytes."""

    vram_bytes: Annotated[int, Meta(description="bytes of memory that the model takes in all")]
    weights_bytes: Annotated[int, Meta(description="bytes of these for weights")]
    kv_bytes: Annotated[int, Meta(description="bytes of these for the KV cache of one conversation")]
    expert_bytes: Annotated[int, Meta(description="bytes of the weights that are experts'; 0 for a dense model")]

    @classmethod
    def of(cls, estimate: Estimate) -> "EstimateReply":
        """Translate an estimate."""
        return cls(
            vram_bytes=estimate.total,
            weights_bytes=estimate.weights,
            kv_bytes=estimate.cache,
            expert_bytes=estimate.experts,
        )
