"""Loads a model and prints whether its rows can be computed together, as JSON; `doctor` runs it as a process."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from app.services import catalog
from app.services.engine.model import blas
from app.services.facts import Batching


def try_batching(path: Path, blas_choice: str) -> Batching:
    """Load a model and try it. Raises LoadFailed."""
    blas.preload(blas_choice)
    from app.services.engine.model import loading
    from app.services.engine.model.batching import check_batching
    from app.services.engine.model.language_model import LanguageModel
    from app.services.engine.model.memory_budget import MemoryBudget
    from app.services.engine.speculative.draft_model import logits_width
    from app.services.gguf.cache import GGUFCache

    folder = catalog.inspect(path)
    with TemporaryDirectory() as temporary:
        model, tokenizer = loading.load_at_once(folder, GGUFCache(Path(temporary)))
    vocabulary = min(logits_width(model), len(tokenizer))
    return check_batching(LanguageModel(model), vocabulary, folder.context.tokens, MemoryBudget().free())


if __name__ == "__main__":
    print(json.dumps(asdict(try_batching(Path(sys.argv[1]), sys.argv[2]))))
