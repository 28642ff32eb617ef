"""Loads a model and prints whether its rows can be computed together, as JSON; `doctor` runs it as a process."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from app.services import catalog
from app.services.engine.model import blas
from app.services.facts import Batching


def try_batching(path: Path) -> Batching:
    """Load the model of a folder and try it. Raises LoadFailed."""
    blas.preload()
    from app.services.engine.model import loading
    from app.services.engine.model.batching import check_batching
    from app.services.engine.model.memory_budget import MemoryBudget
    from app.services.engine.speculative.draft_model import logits_width

    model, tokenizer = loading.load_at_once(path)
    context = catalog.inspect(path).context.tokens
    return check_batching(model, min(logits_width(model), len(tokenizer)), context, MemoryBudget().free())


if __name__ == "__main__":
    print(json.dumps(asdict(try_batching(Path(sys.argv[1])))))
