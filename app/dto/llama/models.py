"""The models that can answer, and the properties of the one that does."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec import UNSET, UnsetType, field

from app import __version__
from app.dto.shared.base import Reply
from app.services.facts import ModelFacts, RouterFacts
from app.services.generation import LLAMA_SAMPLING, Delivery, Sampling
from app.services.model_state import ModelState, Status

EMPTY_CONTEXT = 8192  # what /props says while nothing is loaded


class ModelStatus(Reply, kw_only=True):
    """Whether a model is in memory."""

    value: Status
    args: list[str] | UnsetType = UNSET  # llama-server's command line; there is none here
    preset: str | UnsetType = UNSET
    progress: float | UnsetType = UNSET  # of a load under way, 0 to 1
    failed: Literal[True] | UnsetType = UNSET
    exit_code: int | UnsetType = UNSET
    error: str | UnsetType = UNSET  # why the last load failed

    @classmethod
    def of(cls, state: ModelState) -> "ModelStatus":
        """Say how a model stands; the only one is always loaded."""
        if state.source is None:
            return cls(value=state.status)
        failed = state.status == "failed"
        return cls(
            value=state.status,
            args=[],
            preset="",
            progress=round(state.progress, 3) if state.status == "loading" else UNSET,
            failed=True if failed else UNSET,
            exit_code=1 if failed else UNSET,
            error=state.error if failed and state.error else UNSET,
        )


class ModelArchitecture(Reply, kw_only=True):
    """What goes in and what comes out."""

    input_modalities: list[str] = field(default_factory=lambda: ["text"])
    output_modalities: list[str] = field(default_factory=lambda: ["text"])


class ModelMeta(Reply, kw_only=True):
    """Numbers of a model."""

    vocab_type: int = 2
    n_vocab: int
    n_ctx: int
    n_ctx_train: int
    n_embd: int
    n_params: int
    size: int
    ftype: str

    @classmethod
    def of(cls, facts: ModelFacts) -> "ModelMeta":
        """Count a loaded model."""
        return cls(
            n_vocab=facts.vocabulary,
            n_ctx=facts.context_length,
            n_ctx_train=facts.trained_context_length,
            n_embd=facts.hidden_size,
            n_params=facts.parameters,
            size=facts.weight_bytes,
            ftype=facts.precision,
        )


class ModelRow(Reply, kw_only=True):
    """A model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["tiles"] = "tiles"
    in_cache: bool = True
    path: str
    status: ModelStatus
    aliases: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    architecture: ModelArchitecture
    source: str | UnsetType = UNSET
    can_remove: bool | UnsetType = UNSET
    meta: ModelMeta | UnsetType = UNSET

    @classmethod
    def of(cls, state: ModelState) -> "ModelRow":
        """Describe a model; its numbers are known while it is loaded."""
        return cls(
            id=state.id,
            created=state.created,
            path=str(state.path),
            status=ModelStatus.of(state),
            architecture=ModelArchitecture(),
            source=state.source or UNSET,
            can_remove=False if state.source else UNSET,
            meta=ModelMeta.of(state.facts) if state.facts else UNSET,
        )


class ModelDetails(Reply, kw_only=True):
    """Details in Ollama's words, which llama-server gives too."""

    parent_model: str = ""
    format: str = "mlx"
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class NamedModel(Reply, kw_only=True):
    """A model in Ollama's words; the Web UI reads its capabilities."""

    name: str
    model: str
    modified_at: str
    size: str = ""
    digest: str = ""
    type: Literal["model"] = "model"
    description: str = ""
    tags: list[str] = field(default_factory=list)
    capabilities: list[str]
    parameters: str = ""
    details: ModelDetails

    @classmethod
    def of(cls, facts: ModelFacts) -> "NamedModel":
        """Describe a loaded model."""
        return cls(
            name=facts.id,
            model=facts.id,
            modified_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(facts.created)),
            capabilities=["completion", *(["tools"] if facts.calls_tools else [])],
            details=ModelDetails(
                family=facts.model_type,
                families=[facts.model_type],
                parameter_size=f"{facts.parameters / 1e6:.1f}M",
                quantization_level=facts.precision,
            ),
        )


class ModelList(Reply, kw_only=True):
    """All models that can answer."""

    object: Literal["list"] = "list"
    data: list[ModelRow]
    models: list[NamedModel] | UnsetType = UNSET  # not where there are several: it would be paired by position

    @classmethod
    def of(cls, states: Sequence[ModelState], *, several: bool) -> "ModelList":
        """List what is served, or all of several models that can be."""
        models = [NamedModel.of(state.facts) for state in states if state.facts]
        return cls(data=[ModelRow.of(state) for state in states], models=UNSET if several else models)


class Modalities(Reply, kw_only=True):
    """What besides text the model reads."""

    vision: bool = False
    video: bool = False
    audio: bool = False


class TemplateCapabilities(Reply, kw_only=True):
    """What the chat template can say."""

    supports_tools: bool
    supports_tool_calls: bool
    supports_system_role: bool = True
    supports_parallel_tool_calls: bool
    supports_object_arguments: bool = True
    supports_string_content: bool = True
    supports_typed_content: bool = False
    supports_preserve_reasoning: bool
    supports_reasoning_effort: bool = False


class GenerationDefaults(Reply, kw_only=True):
    """The settings that a request has unless it says otherwise."""

    n_ctx: int
    params: dict[str, Any]


class Props(Reply, kw_only=True):
    """Properties of the server and its model, as llama-server gives them."""

    role: Literal["model"] = "model"
    default_generation_settings: GenerationDefaults
    total_slots: int
    model_alias: str
    model_path: str
    model_ftype: str
    modalities: Modalities = field(default_factory=Modalities)
    media_marker: str = ""
    endpoint_slots: bool = True
    endpoint_props: bool = False
    endpoint_metrics: bool = True
    ui: bool = True  # false would hide the model from the Web UI
    ui_settings: dict[str, Any] = field(default_factory=dict)
    webui_settings: dict[str, Any] = field(default_factory=dict)
    chat_template: str
    chat_template_caps: TemplateCapabilities | UnsetType = UNSET
    bos_token: str
    eos_token: str
    build_info: str = f"tiles-server {__version__}"
    is_sleeping: bool = False
    cors_proxy_enabled: bool = False

    @classmethod
    def of(cls, facts: ModelFacts | None, total_slots: int, ui_settings: dict[str, Any] | None = None) -> "Props":
        """Describe the server with what is loaded, or with nothing."""
        admins = ui_settings or {}
        if facts is None:
            defaults = GenerationDefaults(n_ctx=EMPTY_CONTEXT, params=generation_params(Sampling()))
            return cls(
                default_generation_settings=defaults,
                total_slots=total_slots,
                ui_settings=admins,
                webui_settings=admins,
                model_alias="",
                model_path="",
                model_ftype="",
                chat_template="",
                bos_token="",
                eos_token="",
            )
        return cls(
            default_generation_settings=GenerationDefaults(
                n_ctx=facts.context_length, params=generation_params(facts.defaults)
            ),
            total_slots=total_slots,
            ui_settings=admins,
            webui_settings=admins,
            model_alias=facts.id,
            model_path=str(facts.path),
            model_ftype=facts.precision,
            chat_template=facts.chat_template,
            chat_template_caps=_capabilities(facts),
            bos_token=facts.bos_token,
            eos_token=facts.eos_token,
        )


class NoDefaults(Reply, kw_only=True):
    """Where a model would have its settings."""

    n_ctx: int = 0
    params: None = None


class RouterProps(Reply, kw_only=True):
    """Properties of a server with several models; /props?model= has those of one."""

    role: Literal["router"] = "router"
    max_instances: int
    models_autoload: bool = True
    model_alias: str = "tiles-server"
    model_path: str = "none"
    default_generation_settings: NoDefaults = field(default_factory=NoDefaults)
    ui_settings: dict[str, Any]
    webui_settings: dict[str, Any]
    build_info: str = f"tiles-server {__version__}"
    cors_proxy_enabled: bool = False

    @classmethod
    def of(cls, facts: RouterFacts, ui_settings: dict[str, Any] | None) -> "RouterProps":
        """Describe the server with no model of it."""
        admins = ui_settings or {}
        return cls(max_instances=facts.max_models, ui_settings=admins, webui_settings=admins)


def _capabilities(facts: ModelFacts) -> TemplateCapabilities:
    return TemplateCapabilities(
        supports_tools="tools" in facts.chat_template,
        supports_tool_calls=facts.calls_tools,
        supports_parallel_tool_calls=facts.calls_tools,
        supports_preserve_reasoning="reasoning_content" in facts.chat_template,
    )


_WHOLE = Delivery()


def generation_params(sampling: Sampling, delivery: Delivery = _WHOLE) -> dict[str, Any]:
    """Sampling in llama.cpp's names; what does not exist here stands at its off value."""
    sampling = sampling.over(LLAMA_SAMPLING)
    return {
        "seed": _or(sampling.seed, 2**32 - 1),
        "temperature": sampling.temperature,
        "dynatemp_range": sampling.dynatemp_range,
        "dynatemp_exponent": sampling.dynatemp_exponent,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "top_n_sigma": sampling.top_n_sigma,
        "xtc_probability": sampling.xtc_probability,
        "xtc_threshold": sampling.xtc_threshold,
        "typical_p": sampling.typical_p,
        "typ_p": sampling.typical_p,  # the Web UI's name
        "repeat_last_n": _or(sampling.penalty_window, -1),
        "repeat_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "dry_multiplier": sampling.dry_multiplier,
        "dry_base": sampling.dry_base,
        "dry_allowed_length": sampling.dry_allowed_length,
        "dry_penalty_last_n": _or(sampling.dry_window, -1),
        "mirostat": 0,
        "mirostat_tau": 5.0,
        "mirostat_eta": 0.1,
        "adaptive_target": -1.0,
        "adaptive_decay": 0.9,
        "max_tokens": -1,
        "n_predict": -1,
        "n_keep": 0,
        "n_discard": 0,
        "ignore_eos": False,
        "stream": delivery.stream,
        "n_probs": 0,
        "min_keep": sampling.min_keep,
        "chat_format": "template",
        "reasoning_format": "auto",
        "reasoning_in_content": False,
        "generation_prompt": "",
        "samplers": list(sampling.samplers),
        "speculative.types": "none",
        "timings_per_token": delivery.timings_per_token,
        "post_sampling_probs": False,
        "backend_sampling": False,
        "lora": [],
    }


def lora_params(scales: Mapping[int, float]) -> list[dict[str, float]]:
    """Say how much each adapter counts."""
    return [{"id": number, "scale": scale} for number, scale in scales.items()]


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
