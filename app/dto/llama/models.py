"""The models that can answer, and the properties of the one that does."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, field

from app import __version__
from app.dto.shared.base import Reply
from app.dto.shared.dates import date
from app.services.facts import Batching, GroupFacts, ModelFacts, RouterFacts
from app.services.generation import LLAMA_SAMPLING, Delivery, Sampling
from app.services.media_marker import MEDIA_MARKER
from app.services.model_folder import ModelFolder, Task
from app.services.model_state import FileProgress, ModelState, Status

EMPTY_CONTEXT = 8192  # what /props says while nothing is loaded
StatusName = Literal["unloaded", "loading", "loaded", "unloading", "failed", "downloading"]
STATUS_NAMES: Mapping[Status, StatusName] = {
    Status.UNLOADED: "unloaded",
    Status.FAILED: "failed",
    Status.QUEUED: "loading",
    Status.LOADING: "loading",
    Status.LOADED: "loaded",
    Status.EVICTING: "unloading",
    Status.UNLOADING: "unloading",
    Status.DOWNLOADING: "downloading",
}


class DownloadedBytes(Reply, kw_only=True):
    """How much of a file is downloaded."""

    done: Annotated[int, Meta(description="bytes that are there")]
    total: Annotated[int, Meta(description="bytes of the whole file")]

    @classmethod
    def of(cls, files: Mapping[str, FileProgress]) -> "dict[str, DownloadedBytes]":
        """Count those of each file."""
        return {path: cls(done=file.done, total=file.total) for path, file in files.items()}


class ModelStatus(Reply, kw_only=True):
    """Whether a model is in memory."""

    value: Annotated[StatusName, Meta(description="state of the model")]
    args: Annotated[
        list[str] | UnsetType, Meta(description="always empty: llama-server's command line of the model")
    ] = UNSET
    preset: Annotated[str | UnsetType, Meta(description="always empty; llama-server's field")] = UNSET
    progress: Annotated[
        float | dict[str, DownloadedBytes] | UnsetType,
        Meta(description="progress of a load under way, 0 to 1; of a download the bytes of each file"),
    ] = UNSET
    failed: Annotated[Literal[True] | UnsetType, Meta(description="true where the last load failed")] = UNSET
    exit_code: Annotated[int | UnsetType, Meta(description="1 where the last load failed")] = UNSET
    error: Annotated[str | UnsetType, Meta(description="why the last load failed")] = UNSET

    @classmethod
    def of(cls, state: ModelState) -> "ModelStatus":
        """Give the status of a model; the only one is always loaded."""
        name = STATUS_NAMES[state.status]
        if state.source is None:
            return cls(value=name)
        failed = state.status is Status.FAILED
        return cls(
            value=name,
            args=[],
            preset="",
            progress=_progress(state),
            failed=True if failed else UNSET,
            exit_code=1 if failed else UNSET,
            error=state.error if failed and state.error else UNSET,
        )


def _progress(state: ModelState) -> float | dict[str, DownloadedBytes] | UnsetType:
    if state.status is Status.DOWNLOADING:
        return DownloadedBytes.of(state.files)
    return round(state.progress, 3) if STATUS_NAMES[state.status] == "loading" else UNSET


_OUTPUTS: Mapping[Task, str] = {"completion": "text", "embedding": "embeddings", "rerank": "rerank"}


def capabilities(facts: ModelFacts | ModelFolder | None) -> list[str]:
    """Say what a model can do: what it was made for, of a model that writes the rest as well, once it is loaded."""
    if facts is None:
        return []
    if facts.is_encoder or facts.task != "completion":
        return [facts.task]
    skills = {"tools": facts.calls_tools, "thinking": facts.reasons} if isinstance(facts, ModelFacts) else {}
    skills |= {"vision": facts.sees}
    return ["completion", "embedding", "rerank", *(name for name, has_it in skills.items() if has_it)]


class ModelArchitecture(Reply, kw_only=True):
    """What goes in and what comes out."""

    input_modalities: Annotated[list[str], Meta(description="what the model reads: text, and images if it sees")] = (
        field(default_factory=lambda: ["text"])
    )
    output_modalities: Annotated[
        list[str], Meta(description="what it gives: text, or embeddings or rerank of a model made for these")
    ] = field(default_factory=lambda: ["text"])


class ModelMeta(Reply, kw_only=True):
    """Numbers of a model."""

    vocab_type: Annotated[int, Meta(description="llama.cpp's number for the kind of vocabulary")] = 2
    n_vocab: Annotated[int, Meta(description="tokens in the vocabulary")]
    n_ctx: Annotated[int, Meta(description="tokens that the context holds")]
    n_ctx_train: Annotated[int, Meta(description="tokens of context that the model was trained with")]
    n_ctx_source: Annotated[str, Meta(description="where that number comes from: a file, a default, or assumed")]
    n_embd: Annotated[int, Meta(description="size of the hidden states")]
    n_params: Annotated[int, Meta(description="number of parameters")]
    size: Annotated[int, Meta(description="bytes of the weights")]
    ftype: Annotated[str, Meta(description="precision of the weights")]

    @classmethod
    def of(cls, facts: ModelFacts) -> "ModelMeta":
        """Count a loaded model."""
        return cls(
            n_vocab=facts.vocabulary,
            n_ctx=facts.context.tokens,
            n_ctx_train=facts.context.model_tokens,
            n_ctx_source=facts.context.source,
            n_embd=facts.hidden_size,
            n_params=facts.parameters,
            size=facts.weight_bytes,
            ftype=facts.precision,
        )


class ModelRow(Reply, kw_only=True):
    """A model."""

    id: Annotated[str, Meta(description="name of the model in requests")]
    object: Literal["model"] = "model"
    created: Annotated[int, Meta(description="when its files were written, in Unix seconds")]
    owned_by: Annotated[Literal["tiles"], Meta(description="always tiles")] = "tiles"
    in_cache: Annotated[bool, Meta(description="always true: its files are on this machine")] = True
    path: Annotated[str, Meta(description="folder of the model, or its GGUF file")]
    status: Annotated[ModelStatus, Meta(description="whether it is loaded")]
    aliases: Annotated[list[str], Meta(description="other names for requests, with --models-dir")] = field(
        default_factory=list
    )
    tags: Annotated[list[str], Meta(description="always empty; llama-server's field")] = field(default_factory=list)
    architecture: Annotated[ModelArchitecture, Meta(description="what it reads and writes")]
    capabilities: Annotated[
        list[str],
        Meta(
            description="what it can do: completion, embedding, rerank; while it is loaded tools, thinking and vision"
        ),
    ]
    source: Annotated[str | UnsetType, Meta(description="where it was found; with --models-dir")] = UNSET
    can_remove: Annotated[
        bool | UnsetType, Meta(description="whether DELETE /models takes it, as it was downloaded; with --models-dir")
    ] = UNSET
    meta: Annotated[ModelMeta | UnsetType, Meta(description="its numbers, while it is loaded")] = UNSET

    @classmethod
    def of(cls, state: ModelState, files: ModelFolder | None = None) -> "ModelRow":
        """Describe a model; its numbers are known while it is loaded, before that what its files say."""
        facts = state.facts or files
        return cls(
            id=state.id,
            created=state.created,
            path=str(state.path),
            status=ModelStatus.of(state),
            aliases=[*state.aliases],
            architecture=ModelArchitecture(
                input_modalities=["text", "image"] if facts and facts.sees else ["text"],
                output_modalities=[_OUTPUTS[facts.task if facts else "completion"]],
            ),
            capabilities=capabilities(facts),
            source=state.source or UNSET,
            can_remove=state.can_remove if state.source else UNSET,
            meta=ModelMeta.of(state.facts) if state.facts else UNSET,
        )


class ModelDetails(Reply, kw_only=True):
    """Details in Ollama's words, which llama-server gives too."""

    parent_model: Annotated[str, Meta(description="always empty; Ollama's field")] = ""
    format: Annotated[Literal["mlx", "gguf"], Meta(description="format of the files")]
    family: Annotated[str, Meta(description="family of the model, as its config names it")]
    families: Annotated[list[str], Meta(description="the same family, in a list")]
    parameter_size: Annotated[str, Meta(description="number of parameters, in millions")]
    quantization_level: Annotated[str, Meta(description="precision of the weights")]

    @classmethod
    def of(cls, facts: ModelFacts | ModelFolder) -> "ModelDetails":
        """Describe a model, loaded or not."""
        return cls(
            format="gguf" if facts.path.suffix.lower() == ".gguf" else "mlx",
            family=facts.model_type,
            families=[facts.model_type],
            parameter_size=f"{facts.parameters / 1e6:.1f}M",
            quantization_level=facts.precision,
        )


class NamedModel(Reply, kw_only=True):
    """A model in Ollama's words; the Web UI reads its capabilities."""

    name: Annotated[str, Meta(description="name of the model in requests")]
    model: Annotated[str, Meta(description="the same as name")]
    modified_at: Annotated[str, Meta(description="when its files were written, as ISO 8601 in UTC")]
    size: Annotated[str, Meta(description="always empty; Ollama's field")] = ""
    digest: Annotated[str, Meta(description="always empty; Ollama's field")] = ""
    type: Literal["model"] = "model"
    description: Annotated[str, Meta(description="always empty; Ollama's field")] = ""
    tags: Annotated[list[str], Meta(description="always empty; Ollama's field")] = field(default_factory=list)
    capabilities: Annotated[
        list[str],
        Meta(
            description="completion, tools and multimodal where the model calls tools or sees; else embedding or rerank"
        ),
    ]
    parameters: Annotated[str, Meta(description="always empty; Ollama's field")] = ""
    details: Annotated[ModelDetails, Meta(description="family, size and precision")]

    @classmethod
    def of(cls, facts: ModelFacts) -> "NamedModel":
        """Describe a loaded model."""
        return cls(
            name=facts.id,
            model=facts.id,
            modified_at=date(facts.created),
            capabilities=[
                facts.task,
                *(["tools"] if facts.calls_tools else []),
                *(["multimodal"] if facts.sees else []),
            ],
            details=ModelDetails.of(facts),
        )


class ModelList(Reply, kw_only=True):
    """All models that can answer."""

    object: Literal["list"] = "list"
    data: Annotated[list[ModelRow], Meta(description="the models that can be named in a request")]
    models: Annotated[
        list[NamedModel] | UnsetType, Meta(description="the loaded model in Ollama's words; absent with --models-dir")
    ] = UNSET

    @classmethod
    def of(
        cls, states: Sequence[ModelState], files: Sequence[ModelFolder | None] = (), *, several: bool
    ) -> "ModelList":
        """List what is served, or all of several models that can be, with what their files say."""
        models = [NamedModel.of(state.facts) for state in states if state.facts]
        data = [ModelRow.of(state, folder) for state, folder in zip_longest(states, files)]
        return cls(data=data, models=UNSET if several else models)


class Modalities(Reply, kw_only=True):
    """What besides text the model reads."""

    vision: Annotated[bool, Meta(description="whether the model reads images")] = False
    video: Annotated[bool, Meta(description="whether the model reads video")] = False
    audio: Annotated[bool, Meta(description="whether the model reads audio")] = False


class TemplateCapabilities(Reply, kw_only=True):
    """What the chat template can say."""

    supports_tools: Annotated[bool, Meta(description="whether it reads tools")]
    supports_tool_calls: Annotated[bool, Meta(description="whether calls of tools are parsed")]
    supports_system_role: Annotated[bool, Meta(description="whether it takes system messages")] = True
    supports_parallel_tool_calls: Annotated[bool, Meta(description="whether an answer may call several tools")]
    supports_object_arguments: Annotated[bool, Meta(description="whether arguments of calls are objects")] = True
    supports_string_content: Annotated[bool, Meta(description="whether contents may be strings")] = True
    supports_typed_content: Annotated[bool, Meta(description="whether contents may be lists of parts")] = False
    supports_preserve_reasoning: Annotated[
        bool, Meta(description="whether it reads reasoning_content of earlier answers")
    ]
    supports_reasoning_effort: Annotated[bool, Meta(description="always false; llama-server's field")] = False


class GenerationDefaults(Reply, kw_only=True):
    """Sampling where a request says nothing."""

    n_ctx: Annotated[int, Meta(description="tokens that the context holds")]
    params: Annotated[dict[str, Any], Meta(description="sampling where a request says nothing, in llama.cpp's names")]


class BatchingProps(Reply, kw_only=True):
    """What of several answers is computed together, as found when the model was loaded."""

    decoding: Annotated[bool, Meta(description="whether answers share a batch; else each has its own")]
    prefill: Annotated[bool, Meta(description="whether short prompts are computed in one call; else one by one")]
    reason: Annotated[str | None, Meta(description="why not, null where both are")]

    @classmethod
    def of(cls, batching: Batching) -> "BatchingProps":
        """Say what is computed together."""
        return cls(
            decoding=batching.decoding is None,
            prefill=batching.decoding is None and batching.prefill is None,
            reason=batching.decoding or batching.prefill,
        )


class MachineProps(Reply, kw_only=True):
    """One of the machines that serve the model together."""

    rank: Annotated[int, Meta(description="its place in the hostfile, from 0")]
    host: Annotated[str, Meta(description="its name for ssh")]
    state: Annotated[Literal["waiting", "loading", "ready"], Meta(description="whether it takes part")]
    device: Annotated[str, Meta(description="what it computes with")]
    memory_free: Annotated[int | None, Meta(description="bytes for KV caches; null of this machine")]


class GroupProps(Reply, kw_only=True):
    """The machines that serve the model together, --hostfile."""

    sharding: Annotated[
        Literal["tensor", "pipeline"] | None, Meta(description="a share of every layer each, or some of the layers")
    ]
    back_end: Annotated[str, Meta(description="what connects them: ring, jaccl, jaccl-ring or nccl")]
    machines: Annotated[list[MachineProps], Meta(description="the machines, this one first")]

    @classmethod
    def of(cls, facts: GroupFacts) -> "GroupProps":
        """Describe the machines."""
        machines = [
            MachineProps(rank=rank, host=one.host, state=one.state, device=one.device, memory_free=one.free_bytes)
            for rank, one in enumerate(facts.machines)
        ]
        return cls(sharding=facts.sharding, back_end=facts.back_end, machines=machines)


class TilesProps(Reply, kw_only=True):
    """Properties that llama-server does not have."""

    batching: Annotated[BatchingProps, Meta(description="what of several answers is computed together")]
    blas: Annotated[
        str | None,
        Meta(description="the BLAS of a Linux CPU: its file or package, `reference` for MLX's slow one; null on a GPU"),
    ]
    kv_bits: Annotated[
        tuple[int, int] | None,
        Meta(description="bits of older keys and values in KV caches, --kv-bits; null where they are not rounded"),
    ] = None
    warnings: Annotated[
        list[str], Meta(description="what of the model is not exactly as in its GGUF file; mostly nothing")
    ] = field(default_factory=list)
    group: Annotated[
        GroupProps | None,
        Meta(description="the machines that serve the model together; null of one alone"),
    ] = None


class Props(Reply, kw_only=True):
    """Properties of the server and its model, as llama-server gives them."""

    role: Annotated[Literal["model"], Meta(description="tells a server of one model from a router")] = "model"
    default_generation_settings: Annotated[
        GenerationDefaults, Meta(description="context and sampling where a request says nothing")
    ]
    total_slots: Annotated[int, Meta(description="answers that are made at the same time, --max-batch")]
    model_alias: Annotated[str, Meta(description="id of the model, empty without one")]
    model_path: Annotated[str, Meta(description="folder of the model, or its GGUF file; empty without one")]
    model_ftype: Annotated[str, Meta(description="precision of its weights")]
    modalities: Annotated[Modalities, Meta(description="what it reads besides text")] = field(
        default_factory=Modalities
    )
    media_marker: Annotated[str, Meta(description="what stands for an image in a `prompt_string`")] = ""
    endpoint_slots: Annotated[bool, Meta(description="always true: GET /slots is there")] = True
    endpoint_props: Annotated[bool, Meta(description="always false: properties cannot be set")] = False
    endpoint_metrics: Annotated[bool, Meta(description="always true: GET /metrics is there")] = True
    ui: Annotated[bool, Meta(description="always true: the Web UI may show the model")] = True
    ui_settings: Annotated[dict[str, Any], Meta(description="settings that the Web UI begins with, --ui-settings")] = (
        field(default_factory=dict)
    )
    webui_settings: Annotated[dict[str, Any], Meta(description="the same settings by their old name")] = field(
        default_factory=dict
    )
    chat_template: Annotated[str, Meta(description="the chat template of the model")]
    chat_template_caps: Annotated[
        TemplateCapabilities | UnsetType, Meta(description="what the chat template can say; absent without a model")
    ] = UNSET
    bos_token: Annotated[str, Meta(description="token at the beginning of a text")]
    eos_token: Annotated[str, Meta(description="token that ends an answer")]
    build_info: Annotated[str, Meta(description="name and version of the server")] = f"tiles-server {__version__}"
    is_sleeping: Annotated[bool, Meta(description="always false; llama-server's field")] = False
    tiles: Annotated[
        TilesProps | UnsetType, Meta(description="what llama-server does not have; absent without a model")
    ] = UNSET
    cors_proxy_enabled: Annotated[bool, Meta(description="whether /cors-proxy is on, --mcp-config")] = False

    @classmethod
    def of(
        cls,
        facts: ModelFacts | None,
        total_slots: int,
        ui_settings: dict[str, Any] | None = None,
        *,
        has_proxy: bool = False,
        group: GroupFacts | None = None,
    ) -> "Props":
        """Describe the server with what is loaded, or with nothing."""
        admins = ui_settings or {}
        if facts is None:
            defaults = GenerationDefaults(n_ctx=EMPTY_CONTEXT, params=generation_params(Sampling()))
            return cls(
                default_generation_settings=defaults,
                total_slots=total_slots,
                ui_settings=admins,
                webui_settings=admins,
                cors_proxy_enabled=has_proxy,
                model_alias="",
                model_path="",
                model_ftype="",
                chat_template="",
                bos_token="",
                eos_token="",
            )
        return cls(
            default_generation_settings=GenerationDefaults(
                n_ctx=facts.context.tokens, params=generation_params(facts.defaults)
            ),
            total_slots=total_slots,
            ui_settings=admins,
            webui_settings=admins,
            cors_proxy_enabled=has_proxy,
            model_alias=facts.id,
            model_path=str(facts.path),
            model_ftype=facts.precision,
            modalities=Modalities(vision=facts.sees),
            media_marker=MEDIA_MARKER,
            chat_template=facts.chat_template,
            chat_template_caps=_capabilities(facts),
            bos_token=facts.bos_token,
            eos_token=facts.eos_token,
            tiles=TilesProps(
                batching=BatchingProps.of(facts.batching),
                blas=facts.blas,
                kv_bits=facts.kv_bits,
                warnings=[*facts.warnings],
                group=GroupProps.of(group) if group is not None else None,
            ),
        )


class NoDefaults(Reply, kw_only=True):
    """Where a model would have its settings."""

    n_ctx: Annotated[int, Meta(description="always 0")] = 0
    params: Annotated[None, Meta(description="always null")] = None


class RouterProps(Reply, kw_only=True):
    """Properties of a server with several models; /props?model= has those of one."""

    role: Annotated[Literal["router"], Meta(description="tells a router from a server of one model")] = "router"
    max_instances: Annotated[int, Meta(description="models that may be loaded at the same time, --max-models")]
    models_autoload: Annotated[bool, Meta(description="always true: a request loads the model that it names")] = True
    model_alias: Annotated[str, Meta(description="always tiles-server")] = "tiles-server"
    model_path: Annotated[str, Meta(description="always none")] = "none"
    default_generation_settings: Annotated[
        NoDefaults, Meta(description="always empty: /props?model= has those of a model")
    ] = field(default_factory=NoDefaults)
    ui_settings: Annotated[dict[str, Any], Meta(description="settings that the Web UI begins with, --ui-settings")]
    webui_settings: Annotated[dict[str, Any], Meta(description="the same settings by their old name")]
    build_info: Annotated[str, Meta(description="name and version of the server")] = f"tiles-server {__version__}"
    cors_proxy_enabled: Annotated[bool, Meta(description="whether /cors-proxy is on, --mcp-config")] = False

    @classmethod
    def of(cls, facts: RouterFacts, ui_settings: dict[str, Any] | None, *, has_proxy: bool = False) -> "RouterProps":
        """Describe the server with no model of it."""
        admins = ui_settings or {}
        return cls(
            max_instances=facts.max_models, ui_settings=admins, webui_settings=admins, cors_proxy_enabled=has_proxy
        )


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
    """Give the scale of each adapter."""
    return [{"id": number, "scale": scale} for number, scale in scales.items()]


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
