"""Which layers see everything, and which have a window."""

from app.services.gguf.architectures.hyperparameters import Hyperparameters


def layer_types(values: Hyperparameters, layers: int, period: int) -> list[str]:
    """Give the kind of each layer. Raises LoadFailed if all are of one kind.

    `period`: the one of llama.cpp's code; the last layer in each sees everything, unless the file says otherwise.
    """
    key = "attention.sliding_window_pattern"
    if (flags := values.flags(key, layers)) is None:
        period = values.integer(key, period)
        flags = [layer % period < period - 1 for layer in range(layers)] if period > 0 else []
    if len(set(flags)) != 2:
        raise values.refused("has windows in all layers or in none, which mlx-lm's model has not")
    return ["sliding_attention" if has_window else "full_attention" for has_window in flags]
