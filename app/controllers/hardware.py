"""Whether a model fits this machine."""

from typing import Annotated, Any

from litestar import Controller, Request, get, post
from litestar.di import NamedDependency
from litestar.openapi.spec import Example
from litestar.params import Body

from app.controllers.answer import unless_gone
from app.controllers.openapi import operation
from app.controllers.refusals import body_refusals, refusals
from app.dto.tiles.hardware import EstimateReply, EstimateRequest, HardwareReply
from app.services.errors import BrowserPage, EstimateFailed
from app.services.model_service import ModelService

_HARDWARE = {
    "devices": [
        {
            "id": "GPU0",
            "name": "Apple M4 Pro",
            "total_bytes": 40_200_896_512,
            "free_bytes": 32_400_896_512,
            "integrated": False,
            "reclaimable_bytes": 7_800_000_000,
        }
    ],
    "memory": {"total_bytes": 51_539_607_552, "available_bytes": 30_064_771_072},
}
_ESTIMATE = {
    "vram_bytes": 10_400_000_000,
    "weights_bytes": 7_548_096_512,
    "kv_bytes": 2_583_691_264,
    "expert_bytes": 0,
}
_REQUEST = Example(
    value={
        "url": "https://hub.example/unsloth/gemma-4-12b-it-GGUF/resolve/main/gemma-4-12b-it-Q4_K_M.gguf",
        "size": 7_121_860_736,
    }
)
_FAILED = EstimateFailed("The address gives no parts of a file: it answers with 404")


class HardwareController(Controller):
    """Tiles asks before it recommends a model."""

    tags = ["Tiles"]
    opt = {"dialect": "Tiles"}

    @get("/v1/hardware", summary="Read the hardware", operation_class=operation(_HARDWARE), responses=refusals())
    async def read_hardware(self, model_service: NamedDependency[ModelService]) -> HardwareReply:
        """Give the memory of the machine, and of the GPU that computes, if one does."""
        return HardwareReply.of(model_service.hardware())

    @post(
        "/v1/estimate",
        status_code=200,
        summary="Estimate the memory of a model",
        operation_class=operation(_ESTIMATE),
        responses=body_refusals(_FAILED, BrowserPage()),
    )
    async def estimate_memory(
        self,
        data: Annotated[EstimateRequest, Body(examples=[_REQUEST])],
        request: Request[Any, Any, Any],
        model_service: NamedDependency[ModelService],
    ) -> EstimateReply:
        """Say how much memory a model would take here, from the header of its file. Web pages may not.

        Weights and KV cache are counted as they are when it is loaded. The context is that of `--context-length`, else
        32,768 tokens, or the model's own if that is shorter.
        """
        estimator = model_service.estimator
        work = estimator.of_url(data.url, data.size) if data.url else estimator.of_model(data.model or "")
        return EstimateReply.of(await unless_gone(work, request))
