"""Which model answered each conversation last: one model's KV cache is of no use to another."""

from collections import OrderedDict

_MAX_CONVERSATIONS = 256


class ConversationOwners:
    """The last model of each conversation, by its key. One object for all models; lives on the engine thread."""

    def __init__(self) -> None:
        self._models: OrderedDict[int, str] = OrderedDict()

    def claim(self, key: int, model: str) -> bool:
        """Note that a model answers a conversation. Returns whether another model did so last."""
        last = self._models.pop(key, model)
        self._models[key] = model
        if len(self._models) > _MAX_CONVERSATIONS:
            self._models.popitem(last=False)
        return last != model
