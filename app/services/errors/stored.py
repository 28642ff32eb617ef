"""What is not stored, or not any more: responses, their items, and the streams of conversations."""

from app.services.errors.base import InvalidRequest, NotFound


class ResponseNotFound(NotFound):
    """There is no stored response with this id."""

    code = "response_not_found"
    advice = "Create responses with `store` and read them within `--store-days`."
    default_param = "response_id"

    def __init__(self, identity: str) -> None:
        super().__init__(f"Response with id '{identity[:64]}' not found.")


class PreviousResponseNotFound(InvalidRequest):
    """`previous_response_id` names a response that is not stored."""

    code = "previous_response_not_found"
    advice = "Send the whole conversation as `input`."
    default_param = "previous_response_id"

    def __init__(self, identity: str, *, is_stored: bool = True) -> None:
        why = "" if is_stored else "; this server was started with --store off"
        super().__init__(f"Previous response with id '{identity[:64]}' not found{why}")


class ItemNotFound(InvalidRequest):
    """An `item_reference` names an item that is in none of the responses it may refer to."""

    code = "item_not_found"
    advice = "Send the item itself."

    def __init__(self, identity: str, param: str) -> None:
        super().__init__(f"Item with id '{identity[:64]}' not found", param=param)


class StreamNotFound(NotFound):
    """This conversation has no stream, or none any more."""

    code = "no_stream"
    advice = "Read the conversation from where it is kept, or ask again."
    default_message = "There is no stream of this conversation, or none any more"
    default_param = "conv_id"


class OffsetLost(InvalidRequest):
    """The stream is longer than what is kept of it, and `from` lies before that."""

    code = "offset_lost"
    advice = "Read from a later offset."
    default_param = "from"

    def __init__(self, dropped_bytes: int) -> None:
        super().__init__(f"The first {dropped_bytes} bytes of this stream are not kept any more")
