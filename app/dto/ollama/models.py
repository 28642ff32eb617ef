"""Ollama's lists of models, and what it says of one."""

import hashlib
from collections.abc import Iterable
from typing import Annotated, Any

from msgspec import Meta, field
from pydantic import Field

from app.dto.llama.models import ModelDetails
from app.dto.ollama.answer import tagged
from app.dto.ollama.request import LATEST
from app.dto.shared.base import Body, Reply
from app.dto.shared.dates import date, from_now
from app.services.facts import ModelFacts
from app.services.model_folder import ModelFolder
from app.services.model_state import ModelState

# Programs refuse to work with an older Ollama than they were written for; this is the one whose API is here.
API_VERSION = "0.32.0"
_NEVER = "9999-12-31T23:59:59Z"
_UNKNOWN = ModelDetails(format="mlx", family="", families=[], parameter_size="", quantization_level="")


class OllamaVersion(Reply, kw_only=True):
    """Which of Ollama's APIs this is."""

    version: Annotated[str, Meta(description="version of Ollama whose API this is, not of this server")] = API_VERSION


class _OllamaModel(Reply, kw_only=True):
    name: Annotated[str, Meta(description="name of the model in requests, with its tag")]
    model: Annotated[str, Meta(description="the same name")]
    size: Annotated[int, Meta(description="bytes of the weights, 0 where they cannot be read")]
    digest: Annotated[str, Meta(description="tells versions of the model apart; not a hash of its content")]
    details: Annotated[ModelDetails, Meta(description="family, size and precision")]


class OllamaModel(_OllamaModel, kw_only=True):
    """A model that can be named in a request."""

    modified_at: Annotated[str, Meta(description="when its files were written, as RFC 3339 in UTC")]

    @classmethod
    def of(cls, state: ModelState, facts: ModelFacts | ModelFolder | None) -> "OllamaModel":
        """Describe a model, with what can be told of its files."""
        return cls(**_row(state, facts), modified_at=date(state.created))


class OllamaModels(Reply, kw_only=True):
    """All models that can answer."""

    models: Annotated[list[OllamaModel], Meta(description="the models that can be named in a request")]


class RunningModel(_OllamaModel, kw_only=True):
    """A model in memory."""

    expires_at: Annotated[str, Meta(description="when it is unloaded unless it is used; far off where it stays")]
    size_vram: Annotated[int, Meta(description="the same bytes: memory is shared")]
    context_length: Annotated[int, Meta(description="tokens that its context holds")]

    @classmethod
    def of(cls, state: ModelState, facts: ModelFacts, idle_seconds: float) -> "RunningModel":
        """Describe a loaded model."""
        return cls(
            **_row(state, facts),
            expires_at=from_now(idle_seconds) if idle_seconds else _NEVER,
            size_vram=facts.weight_bytes,
            context_length=facts.context.tokens,
        )


class RunningModels(Reply, kw_only=True):
    """The models in memory."""

    models: Annotated[list[RunningModel], Meta(description="the models in memory")]

    @classmethod
    def of(cls, states: Iterable[ModelState], idle_seconds: float) -> "RunningModels":
        """List what is loaded."""
        return cls(models=[RunningModel.of(state, state.facts, idle_seconds) for state in states if state.facts])


class ShowRequest(Body):
    """Which model to describe."""

    model: str = Field(default="", examples=["tiles-nano"], description="name of the model")
    name: str = Field(default="", description="old name of `model`")
    verbose: bool = Field(default=False, description="without effect: there is no more to say")

    @property
    def model_name(self) -> str:
        """The model as this server names it."""
        return (self.model or self.name).removesuffix(LATEST)


class OllamaFacts(Reply, kw_only=True):
    """What there is to know of a model."""

    modelfile: Annotated[str, Meta(description="always empty: there are no Modelfiles here")] = ""
    license: Annotated[str, Meta(description="always empty; Ollama's field")] = ""
    parameters: Annotated[str, Meta(description="sampling where a request says nothing; empty while not loaded")]
    template: Annotated[str, Meta(description="the chat template, in Jinja and not in Go; empty while not loaded")]
    details: Annotated[ModelDetails, Meta(description="family, size and precision")]
    model_info: Annotated[dict[str, Any], Meta(description="numbers, in the names of a GGUF's metadata")]
    capabilities: Annotated[
        list[str],
        Meta(
            description="completion, tools, thinking, vision; not loaded: completion, tools; else embedding or rerank"
        ),
    ] = field(default_factory=lambda: ["completion", "tools"])
    modified_at: Annotated[str, Meta(description="when its files were written, as RFC 3339 in UTC")]

    @classmethod
    def of(cls, state: ModelState, facts: ModelFacts | ModelFolder | None) -> "OllamaFacts":
        """Describe a model, with what can be told of its files."""
        loaded = state.facts
        reply = cls(
            parameters=_parameters(loaded) if loaded else "",
            template=loaded.chat_template if loaded else "",
            details=ModelDetails.of(facts) if facts else _UNKNOWN,
            model_info=_info(facts) if facts else {},
            modified_at=date(state.created),
        )
        if facts and facts.task != "completion":
            reply.capabilities = [facts.task]
        elif loaded:
            skills = {"tools": loaded.calls_tools, "thinking": loaded.reasons, "vision": loaded.sees}
            reply.capabilities = ["completion", *(name for name, has_it in skills.items() if has_it)]
        return reply


def _row(state: ModelState, facts: ModelFacts | ModelFolder | None) -> dict[str, Any]:
    name = tagged(state.id)
    return {
        "name": name,
        "model": name,
        "size": facts.weight_bytes if facts else 0,
        "digest": hashlib.sha256(f"{state.id}\0{state.path}\0{state.created}".encode(errors="replace")).hexdigest(),
        "details": ModelDetails.of(facts) if facts else _UNKNOWN,
    }


def _info(facts: ModelFacts | ModelFolder) -> dict[str, Any]:
    architecture = facts.model_type
    info = {
        "general.architecture": architecture,
        "general.basename": facts.id,
        "general.parameter_count": facts.parameters,
        f"{architecture}.context_length": facts.context.tokens,
    }
    return info | ({f"{architecture}.embedding_length": facts.hidden_size} if isinstance(facts, ModelFacts) else {})


def _parameters(facts: ModelFacts) -> str:
    """Spell the default sampling as a Modelfile does."""
    defaults = facts.defaults
    values = {
        "temperature": defaults.temperature,
        "top_k": defaults.top_k,
        "top_p": defaults.top_p,
        "min_p": defaults.min_p,
        "repeat_penalty": defaults.repetition_penalty,
    }
    return "\n".join(f"{name:<30} {value:g}" for name, value in values.items() if value is not None)
