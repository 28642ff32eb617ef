"""A server whose model recites what the last user message holds between two words: `python -m tests.reciting serve …`.

So a real engine gives answers that no random model gives, token by token: through caches, batches and grammars.
"""

import importlib.util
import json
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARCHITECTURE = "helium"  # one that mlx-lm knows, in whose place this one is put
SAY, SO = "[SAY]", "[SO]"  # around what is recited


def placeholder(token: str) -> str:
    """A word that stands for a control token in a message."""
    return f"[{token.strip('<|>')}]"


def recite(answer: str, tokens: Sequence[str]) -> str:
    """The message that has the model recite an answer with control tokens."""
    for token in tokens:
        answer = answer.replace(token, placeholder(token))
    return f"{SAY}{answer}{SO}"


def write_model(folder: Path, tokenizer: Any, tokens: Sequence[str], begin: str, **config: Any) -> None:
    """Write the model beside its tokenizer. `begin` is what the template puts behind the last user message."""
    import mlx.core as mx

    ids = tokenizer.convert_tokens_to_ids
    settings = {
        "model_type": ARCHITECTURE,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 4096,
        "say": ids(SAY),
        "so": ids(SO),
        "begin": len(tokenizer.encode(begin, add_special_tokens=False)),
        "meanings": [[ids(placeholder(token)), ids(token)] for token in tokens],
    }
    (folder / "config.json").write_text(json.dumps(settings | config))
    mx.save_safetensors(str(folder / "model.safetensors"), {"weight": mx.ones((1,))}, metadata={"format": "mlx"})


def register() -> None:
    """Put the architecture where mlx-lm looks for one."""
    import mlx.core as mx
    from mlx import nn
    from mlx_lm.models.base import BaseModelArgs

    @dataclass
    class ModelArgs(BaseModelArgs):
        model_type: str
        vocab_size: int
        say: int
        so: int
        begin: int
        meanings: list[list[int]] = field(default_factory=list)
        num_hidden_layers: int = 1

    class Model(nn.Module):
        """Its keys are the tokens themselves. How many came behind the message is how much it has recited."""

        def __init__(self, args: ModelArgs) -> None:
            super().__init__()
            self.args = args
            self.weight = mx.ones((1,))

        @property
        def layers(self) -> list[Any]:
            return [self]

        def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
            tokens = inputs.astype(mx.float32)[:, None, :, None]
            keys = tokens if cache is None else cache[0].update_and_fetch(tokens, tokens)[0]
            history = keys[:, 0, :, 0].astype(mx.int32)  # (rows, length)
            length = history.shape[1]
            positions = mx.arange(length - inputs.shape[1], length)[None]
            say, so = (self._last(history, token, inputs.shape[1]) for token in (self.args.say, self.args.so))
            index = say + 1 + positions - so - self.args.begin
            recited = mx.take_along_axis(history, mx.clip(index, 0, length - 1), axis=1)
            for placeholder_id, token_id in self.args.meanings:
                recited = mx.where(recited == placeholder_id, token_id, recited)
            return (recited[..., None] == mx.arange(self.args.vocab_size)) * 50.0 * self.weight

        def _last(self, history: mx.array, token: int, inputs: int) -> mx.array:
            """Where a token was last, at each of the last `inputs` positions: a draft may hold another one later."""
            places = mx.where(history == token, mx.arange(history.shape[1])[None], 0)
            return mx.cummax(places, axis=1)[:, -inputs:]

    module = types.ModuleType(f"mlx_lm.models.{ARCHITECTURE}")
    module.__spec__ = importlib.util.spec_from_loader(module.__name__, loader=None)
    module.__dict__.update(Model=Model, ModelArgs=ModelArgs)
    sys.modules[module.__name__] = module


if __name__ == "__main__":
    from app.commands.cli import main

    register()
    main(sys.argv[1:])
