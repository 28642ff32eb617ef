"""Slots that are busy or empty, and their files."""

from app.services.errors.base import InvalidRequest, ServerError, Unavailable


class NoSlotAvailable(Unavailable):
    """All slots are processing, and `fail_on_no_slot` is set."""

    code = "no_slot"
    default_message = "No slot is available"


class SlotBusy(InvalidRequest):
    """The slot is processing a request."""

    code = "slot_busy"
    advice = "Try again when the slot is idle."
    default_param = "id_slot"

    def __init__(self, slot: int) -> None:
        super().__init__(f"Slot {slot} is at work; ask again when it is idle")


class SlotEmpty(InvalidRequest):
    """There is nothing in the prompt cache for this slot."""

    code = "slot_empty"
    advice = "Send a request with this `id_slot` first."
    default_param = "id_slot"

    def __init__(self, slot: int) -> None:
        super().__init__(f"Nothing is kept of slot {slot}")


class SlotNotRestored(InvalidRequest):
    """There is no such slot file, or it was saved from another model."""

    code = "slot_not_restored"
    advice = "Restore a file that was saved from this model."
    default_message = "There is no such file, or it was not saved from this model"
    default_param = "filename"


class SlotNotWritten(ServerError):
    """The slot file cannot be written; see the log."""

    code = "slot_not_written"
    advice = "Make space on the disk of `--data-dir`."
    default_message = "The file could not be written; the log says more"
