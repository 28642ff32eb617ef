"""Imports modules of transformers without what takes most of a second and is seldom needed.

One such is its package's index of all models, which only answers which module a name is in. For tokenizers that is
known, and their modules find each other without it. So the package stands there as a module whose `__init__` has not
run; it runs once anybody asks for something else.

The other is the Hub's client, whose names transformers and mlx-lm import for models that are not on this machine. Each
name that would load it is a class here until it is used.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType
from typing import Any

import huggingface_hub

# Where the names are that mlx-lm takes from the package itself.
_TOKENIZERS = {
    "AutoTokenizer": "transformers.models.auto.tokenization_auto",
    "PreTrainedTokenizer": "transformers.tokenization_python",
    "PreTrainedTokenizerBase": "transformers.tokenization_utils_base",
    "PreTrainedTokenizerFast": "transformers.tokenization_utils_tokenizers",
}
# What both take from huggingface_hub that imports its client; none of it is subclassed or caught as an error.
_CLIENT = ("CommitOperationAdd", "HfApi", "ModelCard", "ModelCardData", "ResolvedRevision", "snapshot_download")
_running = RLock()


def defer_transformers() -> None:
    """Have transformers build its index when somebody needs it: to be called before anything imports it."""
    if "transformers" in sys.modules or find_spec("transformers") is None:
        return
    for name in _CLIENT:
        if name not in vars(huggingface_hub):
            setattr(huggingface_hub, name, _LateImport(name, (), {}))
    package = _unrun("transformers", _TOKENIZERS)
    package.__version__ = version("transformers")  # its modules take it from there
    package.models = _unrun("transformers.models", {})


class _LateImport(type):
    """A class that stands for a class or function of huggingface_hub, which is imported when it is used.

    It is a class itself so that it can be called, asked for its attributes and instances, and stand in annotations.
    """

    def _real(cls) -> Any:
        real = huggingface_hub.__getattr__(cls.__name__)  # imports it
        setattr(huggingface_hub, cls.__name__, real)
        return real

    def __call__(cls, *args: Any, **options: Any) -> Any:
        return cls._real()(*args, **options)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls._real(), name)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls._real())


class _UnrunPackage(ModuleType):
    """A package whose modules can be imported, and whose `__init__` runs for the first name that is none of them."""

    _homes: Mapping[str, str]
    _is_running = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self._is_running:  # while it runs, import looks for its modules itself
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if name in self._homes:
            return getattr(import_module(self._homes[name]), name)
        if find_spec(f"{self.__name__}.{name}") is not None:
            return import_module(f"{self.__name__}.{name}")
        return getattr(self._run(), name)

    def _run(self) -> ModuleType:
        """Run the `__init__`. Gives what it leaves as the package, which may be another module."""
        with _running:
            if sys.modules[self.__name__] is self:
                self._is_running = True
                try:
                    assert self.__spec__ is not None and self.__spec__.loader is not None
                    self.__spec__.loader.exec_module(self)
                finally:
                    self._is_running = False
        return sys.modules[self.__name__]


def _unrun(name: str, homes: Mapping[str, str]) -> Any:
    spec = find_spec(name)
    assert spec is not None
    package = module_from_spec(spec)
    package.__class__ = _UnrunPackage
    package._homes = homes  # type: ignore[attr-defined]
    sys.modules[name] = package
    return package
