"""Which model answered a conversation last: what one model computed is of no use to another."""

from collections import OrderedDict

_REMEMBERED = 256


class ConversationOwners:
    """Conversations by how they begin. One for all models; on the engine thread."""

    def __init__(self) -> None:
        self._models: OrderedDict[int, str] = OrderedDict()

    def elsewhere(self, beginning: int, model: str) -> bool:
        """Whether another model answered this conversation last; from now on it is this one."""
        last = self._models.pop(beginning, model)
        self._models[beginning] = model
        if len(self._models) > _REMEMBERED:
            self._models.popitem(last=False)
        return last != model
