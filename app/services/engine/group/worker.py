"""The side that repeats: it knows layers and tokens, and neither requests nor texts."""

import mlx.core as mx

from app.services.engine.cache.layers import OPERATIONS, Layers
from app.services.engine.group.leader import states
from app.services.engine.group.messages import Operation
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.prefill import SHORT


class Worker:
    """Does to its part of a model's layers what the leader does to its own."""

    def __init__(self, model: LanguageModel) -> None:
        self.layers: dict[int, Layers] = {}  # by the leader's numbers
        self._model = model

    def repeat(self, operation: Operation) -> None:
        """Do one operation. What it raises leaves this part out of step with the others."""
        layers = [self.layers[number] for number in operation.layers]
        match operation.name:
            case "new":
                self.layers[operation.result] = self._model.new_layers()
            case "drop":
                for number in operation.layers:
                    del self.layers[number]
            case "fill":
                self._model.fill(layers[0], *operation.values)
                if len(operation.values[0][0]) > SHORT:
                    mx.clear_cache()  # as the leader does
            case "step":
                mx.eval(self._model.step(layers[0], mx.array(operation.values[0])), states(layers[0]))
            case name:
                result = OPERATIONS[name](*layers, *operation.values)
                if isinstance(result, Layers):
                    self.layers[operation.result] = result
