"""llama.cpp's slots: who runs in them, and files of what they hold."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType
from pydantic import Field

from app.dto.llama.models import generation_params, lora_params
from app.dto.shared.base import Body, Reply
from app.services.facts import SlotFacts


class NextToken(Reply, kw_only=True):
    """How far the answer is."""

    has_next_token: Annotated[bool, Meta(description="whether the answer goes on")]
    has_new_line: Annotated[bool, Meta(description="always false; llama-server's field")] = False
    n_remain: Annotated[int, Meta(description="tokens that the answer may still take; -1 once it is over")]
    n_decoded: Annotated[int, Meta(description="tokens of the answer so far")]


class Slot(Reply, kw_only=True):
    """A slot of the batch; what follows `is_processing` is there once it was used."""

    id: Annotated[int, Meta(description="number of the slot")]
    n_ctx: Annotated[int, Meta(description="tokens that the context holds")]
    speculative: Annotated[bool, Meta(description="always false; llama-server's field")] = False
    is_processing: Annotated[bool, Meta(description="whether an answer is at work in it")]
    id_task: Annotated[
        int | UnsetType,
        Meta(description="number of its last request; this and what follows is absent until the slot was used"),
    ] = UNSET
    n_prompt_tokens: Annotated[int | UnsetType, Meta(description="tokens of the prompt")] = UNSET
    n_prompt_tokens_processed: Annotated[int | UnsetType, Meta(description="tokens of the prompt that are done")] = (
        UNSET
    )
    n_prompt_tokens_cache: Annotated[
        int | UnsetType, Meta(description="tokens of the prompt that came from the prefix cache")
    ] = UNSET
    params: Annotated[
        dict[str, Any] | UnsetType, Meta(description="sampling of its last request, in llama.cpp's names")
    ] = UNSET
    next_token: Annotated[list[NextToken] | UnsetType, Meta(description="how far its answer is")] = UNSET

    @classmethod
    def of(cls, facts: SlotFacts, context_length: int) -> "Slot":
        """Describe a slot."""
        slot = cls(id=facts.id, n_ctx=context_length, is_processing=facts.processing)
        if facts.task is None:
            return slot
        slot.id_task = facts.task
        slot.n_prompt_tokens = facts.prompt_tokens
        slot.n_prompt_tokens_processed = facts.prompt_done
        slot.n_prompt_tokens_cache = facts.cached
        slot.params = _params(facts)
        tokens_left = facts.limit - facts.decoded if facts.processing else -1
        slot.next_token = [NextToken(has_next_token=facts.processing, n_remain=tokens_left, n_decoded=facts.decoded)]
        return slot


def _params(facts: SlotFacts) -> dict[str, Any]:
    settings = facts.settings
    return generation_params(settings.sampling, settings.delivery) | {
        "max_tokens": facts.limit,
        "n_predict": facts.limit,
        "ignore_eos": settings.ignore_eos,
        "n_probs": settings.logprobs or 0,
        "post_sampling_probs": settings.post_sampling,
        "lora": lora_params(dict(enumerate(settings.scales))),
    }


class SlotFile(Body):
    """Where to save to or restore from; not needed to erase."""

    filename: str = Field(
        default="",
        max_length=128,
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
        description="name of the file, of letters, digits, dots, dashes and underscores; not needed to erase",
        examples=["chat-1.bin"],
    )


class SlotTimings(Reply, kw_only=True):
    """How long it took."""

    save_ms: Annotated[float | UnsetType, Meta(description="time to save, in milliseconds")] = UNSET
    restore_ms: Annotated[float | UnsetType, Meta(description="time to restore, in milliseconds")] = UNSET


class SlotDone(Reply, kw_only=True):
    """What was done with a slot, in tokens and in bytes of its file."""

    id_slot: Annotated[int, Meta(description="number of the slot")]
    filename: Annotated[str | UnsetType, Meta(description="name of the file")] = UNSET
    n_saved: Annotated[int | UnsetType, Meta(description="tokens that were saved")] = UNSET
    n_written: Annotated[int | UnsetType, Meta(description="bytes that were written")] = UNSET
    n_restored: Annotated[int | UnsetType, Meta(description="tokens that were restored")] = UNSET
    n_read: Annotated[int | UnsetType, Meta(description="bytes that were read")] = UNSET
    n_erased: Annotated[int | UnsetType, Meta(description="tokens that were erased")] = UNSET
    timings: Annotated[SlotTimings | UnsetType, Meta(description="how long it took")] = UNSET
