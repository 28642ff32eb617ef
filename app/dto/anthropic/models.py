"""Anthropic's list of models."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

from msgspec import Meta, field

from app.dto.shared.base import Reply
from app.dto.shared.dates import date
from app.services.facts import ModelFacts
from app.services.model_state import ModelState

_EFFORTS = "reasoning_effort"  # what a chat template with levels of effort reads


class Support(Reply, kw_only=True):
    """Whether something can be done."""

    supported: Annotated[bool, Meta(description="whether it can be done")] = False


_yes = partial(Support, supported=True)


class ContextManagement(Reply, kw_only=True):
    """Editing of a conversation by the server."""

    supported: Annotated[bool, Meta(description="always false: nothing of a conversation is left out")] = False
    clear_thinking_20251015: Annotated[Support, Meta(description="always false; Anthropic's field")] = field(
        default_factory=Support
    )
    clear_tool_uses_20250919: Annotated[Support, Meta(description="always false; Anthropic's field")] = field(
        default_factory=Support
    )
    compact_20260112: Annotated[Support, Meta(description="always false; Anthropic's field")] = field(
        default_factory=Support
    )


class Efforts(Reply, kw_only=True):
    """Levels of effort that the chat template knows."""

    supported: Annotated[bool, Meta(description="whether output_config.effort changes anything")]
    low: Annotated[Support, Meta(description="whether there is this level")]
    medium: Annotated[Support, Meta(description="whether there is this level")]
    high: Annotated[Support, Meta(description="whether there is this level")]
    xhigh: Annotated[Support, Meta(description="always false: it is taken for high")] = field(default_factory=Support)
    max: Annotated[Support, Meta(description="always false: it is taken for high")] = field(default_factory=Support)


class ThinkingTypes(Reply, kw_only=True):
    """Values of thinking.type that are taken."""

    adaptive: Annotated[Support, Meta(description="always true")] = field(default_factory=_yes)
    between_tools: Annotated[Support, Meta(description="always true")] = field(default_factory=_yes)
    disabled: Annotated[Support, Meta(description="always true")] = field(default_factory=_yes)
    enabled: Annotated[Support, Meta(description="always true: a model that cannot reason answers at once")] = field(
        default_factory=_yes
    )


class ThinkingSupport(Reply, kw_only=True):
    """Reasoning before an answer."""

    supported: Annotated[bool, Meta(description="whether the model can write down its reasoning")]
    types: Annotated[ThinkingTypes, Meta(description="values of thinking.type that are taken")] = field(
        default_factory=ThinkingTypes
    )


class ServerTools(Reply, kw_only=True):
    """Tools that a server runs."""

    supported: Annotated[bool, Meta(description="always false: this server runs no tools")] = False
    code_execution: Annotated[Support, Meta(description="always false: this server runs no tools")] = field(
        default_factory=Support
    )
    web_search: Annotated[Support, Meta(description="always false: this server runs no tools")] = field(
        default_factory=Support
    )


class ModelCapabilities(Reply, kw_only=True):
    """What a loaded model can do."""

    batch: Annotated[Support, Meta(description="always false: there are no batches of messages")] = field(
        default_factory=Support
    )
    citations: Annotated[Support, Meta(description="always false: nothing is cited")] = field(default_factory=Support)
    code_execution: Annotated[Support, Meta(description="always false: this server runs no tools")] = field(
        default_factory=Support
    )
    context_management: Annotated[ContextManagement, Meta(description="editing of a conversation by the server")] = (
        field(default_factory=ContextManagement)
    )
    effort: Annotated[Efforts, Meta(description="levels of effort")]
    image_input: Annotated[Support, Meta(description="whether it reads images")] = field(default_factory=Support)
    pdf_input: Annotated[Support, Meta(description="always false: models read text only")] = field(
        default_factory=Support
    )
    server_tools: Annotated[ServerTools, Meta(description="tools that the server runs: none")] = field(
        default_factory=ServerTools
    )
    structured_outputs: Annotated[Support, Meta(description="always true: JSON schemas are enforced")] = field(
        default_factory=_yes
    )
    thinking: Annotated[ThinkingSupport, Meta(description="reasoning before an answer")]

    @classmethod
    def of(cls, facts: ModelFacts) -> "ModelCapabilities":
        """Say what a loaded model can do."""
        level = Support(supported=_EFFORTS in facts.chat_template)
        return cls(
            effort=Efforts(supported=level.supported, low=level, medium=level, high=level),
            image_input=Support(supported=facts.sees),
            thinking=ThinkingSupport(supported=facts.reasons),
        )


class AnthropicModel(Reply, tag_field="type", tag="model", kw_only=True):
    """A model, as Anthropic's clients read it."""

    id: Annotated[str, Meta(description="name of the model in requests")]
    display_name: Annotated[str, Meta(description="the same name")]
    created_at: Annotated[str, Meta(description="when its files were written, as RFC 3339 in UTC")]
    lifecycle: Annotated[Literal["active"], Meta(description="always active")] = "active"
    deprecated_at: Annotated[None, Meta(description="always null; Anthropic's field")] = None
    retires_at: Annotated[None, Meta(description="always null; Anthropic's field")] = None
    line: Annotated[None, Meta(description="always null; Anthropic's field")] = None
    max_input_tokens: Annotated[
        int | None, Meta(description="tokens that the context holds; null while it is not loaded")
    ]
    max_tokens: Annotated[
        int | None, Meta(description="the same: an answer may take what the prompt leaves; null while it is not loaded")
    ]
    capabilities: Annotated[ModelCapabilities | None, Meta(description="what it can do; null while it is not loaded")]

    @classmethod
    def of(cls, state: ModelState) -> "AnthropicModel":
        """Describe a model; what it can do is known while it is loaded."""
        context = state.facts.context.tokens if state.facts else None
        return cls(
            id=state.id,
            display_name=state.id,
            created_at=date(state.created),
            max_input_tokens=context,
            max_tokens=context,
            capabilities=ModelCapabilities.of(state.facts) if state.facts else None,
        )


class AnthropicModelPage(Reply, kw_only=True):
    """A page of the models that can answer, as Anthropic's clients read it."""

    data: Annotated[list[AnthropicModel], Meta(description="the models that can be named in a request")]
    has_more: Annotated[bool, Meta(description="whether there are more models in the direction of the page")]
    first_id: Annotated[str | None, Meta(description="id of the first model of the page, null without one")]
    last_id: Annotated[str | None, Meta(description="id of the last model of the page, null without one")]

    @classmethod
    def of(
        cls, states: Sequence[ModelState], *, limit: int, after_id: str | None = None, before_id: str | None = None
    ) -> "AnthropicModelPage":
        """Give so many models after an id, or the last so many before one, which need not be there any more."""
        ordered = sorted(states, key=lambda state: state.id)
        rest = [
            state
            for state in ordered
            if (after_id is None or state.id > after_id) and (before_id is None or state.id < before_id)
        ]
        page = rest[-limit:] if before_id is not None else rest[:limit]
        return cls(
            data=[AnthropicModel.of(state) for state in page],
            has_more=len(page) < len(rest),
            first_id=page[0].id if page else None,
            last_id=page[-1].id if page else None,
        )
