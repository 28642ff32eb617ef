"""llama.cpp's slots: the places of the batch, and files of what they hold."""

from typing import Any

from msgspec import UNSET, UnsetType
from pydantic import Field

from app.dto.llama.models import generation_params, lora_params
from app.dto.shared.base import Body, Reply
from app.services.facts import SlotFacts


class NextToken(Reply, kw_only=True):
    """How far the answer is."""

    has_next_token: bool
    has_new_line: bool = False
    n_remain: int
    n_decoded: int


class Slot(Reply, kw_only=True):
    """A place of the batch; what follows `is_processing` is there once it was used."""

    id: int
    n_ctx: int
    speculative: bool = False
    is_processing: bool
    id_task: int | UnsetType = UNSET
    n_prompt_tokens: int | UnsetType = UNSET
    n_prompt_tokens_processed: int | UnsetType = UNSET
    n_prompt_tokens_cache: int | UnsetType = UNSET
    params: dict[str, Any] | UnsetType = UNSET
    next_token: list[NextToken] | UnsetType = UNSET

    @classmethod
    def of(cls, facts: SlotFacts, context_length: int) -> "Slot":
        """Describe a place."""
        slot = cls(id=facts.id, n_ctx=context_length, is_processing=facts.processing)
        if facts.task is None:
            return slot
        slot.id_task = facts.task
        slot.n_prompt_tokens = facts.prompt_tokens
        slot.n_prompt_tokens_processed = facts.prompt_done
        slot.n_prompt_tokens_cache = facts.cached
        slot.params = _params(facts)
        left = facts.limit - facts.decoded if facts.processing else -1
        slot.next_token = [NextToken(has_next_token=facts.processing, n_remain=left, n_decoded=facts.decoded)]
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
        description="letters, digits, dots, dashes and underscores; it lies in the data folder",
        examples=["chat-1.bin"],
    )


class SlotTimings(Reply, kw_only=True):
    """How long it took."""

    save_ms: float | UnsetType = UNSET
    restore_ms: float | UnsetType = UNSET


class SlotDone(Reply, kw_only=True):
    """What was done with a slot; in tokens, and in bytes of its file."""

    id_slot: int
    filename: str | UnsetType = UNSET
    n_saved: int | UnsetType = UNSET
    n_written: int | UnsetType = UNSET
    n_restored: int | UnsetType = UNSET
    n_read: int | UnsetType = UNSET
    n_erased: int | UnsetType = UNSET
    timings: SlotTimings | UnsetType = UNSET
