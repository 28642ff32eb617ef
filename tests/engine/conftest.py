"""MLX in the test process: the fast BLAS has to be there before its first import."""

import random
from pathlib import Path
from typing import Any

import pytest

from app.services import catalog
from app.services.engine.model import blas
from app.services.engine.sampling import params
from app.services.gguf.cache import GGUFCache

blas.preload()


@pytest.fixture(autouse=True)
def drawn_seeds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that names no seed draws the same one whenever this test runs: what fails once fails again."""
    monkeypatch.setattr(params, "randbits", random.Random(request.node.nodeid).getrandbits)


@pytest.fixture(scope="session")
def model_and_tokenizer(tiny: Path) -> tuple[Any, Any]:
    """The tiny model and its tokenizer, as the engine has them."""
    from app.services.engine.model import loading

    return loading.load_at_once(catalog.inspect(tiny), GGUFCache(None))


@pytest.fixture(scope="session")
def model(model_and_tokenizer: tuple[Any, Any]) -> Any:
    return model_and_tokenizer[0]


@pytest.fixture(scope="session")
def tokenizer(model_and_tokenizer: tuple[Any, Any]) -> Any:
    return model_and_tokenizer[1]
