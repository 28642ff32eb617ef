"""What a configuration file says of single models: other names, and defaults for requests that say nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_args, get_type_hints

from app.services.generation import GenerationRequest, Sampling
from app.services.model_folder import ModelFolder

_SAMPLING = {
    "temperature": (0.0, 100.0),
    "top_k": (0, 2**31 - 1),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 100.0),
}
_LIMITS = {"context_length": (16, 2**24), "sleep_idle_seconds": (0.0, 86_400.0)} | _SAMPLING


@dataclass(frozen=True, slots=True)
class Preset:
    """A table `[model."name"]`. Raises ValueError, which says what to give, for values that cannot be used."""

    model: str | None = None  # id of the model that the name stands for; None is a model of that id
    context_length: int | None = None  # tokens at most
    sleep_idle_seconds: float | None = None  # with several models: unload it after so long without a request
    pinned: bool = False  # with several models: it is never unloaded for another, or for being idle
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> "Preset":
        """Read a table of a file."""
        hints = get_type_hints(cls)
        for key, value in table.items():
            if key not in hints:
                raise ValueError(f"{key} is no key of a model: give one of {', '.join(hints)}")
            _check(key, value, hints[key])
        return cls(**table)

    @property
    def sampling(self) -> Sampling:
        """Its sampling; None stands for what it does not say."""
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
        )

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        """Give a request the values that it does not have."""
        kwargs = {**self.chat_template_kwargs, **request.template_kwargs}
        return replace(request, sampling=request.sampling.over(self.sampling), template_kwargs=kwargs)


@dataclass(slots=True)
class Presets:
    """The tables of a file, by name. Those of a running server may be replaced. On the event loop."""

    tables: Mapping[str, Preset] = field(default_factory=dict)

    def model(self, name: str | None) -> str | None:
        """Give the id of the model that a name stands for."""
        table = self.tables.get(name or "")
        return table.model if table and table.model else name

    def aliases(self, model: str) -> list[str]:
        """Give the other names of a model."""
        return [name for name, table in self.tables.items() if table.model == model]

    def complete(self, request: GenerationRequest, model: str) -> GenerationRequest:
        """Give a request what the table of its name says, and for the rest that of the model."""
        for name in dict.fromkeys((request.model, model)):
            if (table := self.tables.get(name or "")) is not None:
                request = table.complete(request)
        return request

    def sampling(self, model: str, defaults: Sampling) -> Sampling:
        """Give the sampling of a model for requests that say nothing."""
        table = self.tables.get(model)
        return table.sampling.over(defaults) if table else defaults

    def limited(self, folder: ModelFolder) -> ModelFolder:
        """Give a model, which is to be loaded, the context that its table says."""
        if (tokens := self.of_load(folder.id).context_length) is None:
            return folder
        return replace(folder, context=replace(folder.context.limited_to(tokens), is_assumed=False))

    def of_load(self, model: str) -> Preset:
        """Give the table that counts where a model is loaded and unloaded: its own, else the first of its aliases."""
        names = [model, *self.aliases(model)]
        return next((self.tables[name] for name in names if name in self.tables), Preset())


def _check(key: str, value: Any, hint: Any) -> None:
    kinds = get_args(hint) or (hint,)
    if key == "chat_template_kwargs":
        if not isinstance(value, dict):
            raise ValueError(f"{key}: give a table")
    elif bool in kinds or isinstance(value, bool):
        if not (bool in kinds and isinstance(value, bool)):
            raise ValueError(f"{key}: give {'true or false' if bool in kinds else 'no truth value'}")
    elif str in kinds:
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{key}: give the id of a model")
    else:
        low, high = _LIMITS[key]
        if not isinstance(value, int if int in kinds else int | float) or not low <= value <= high:
            raise ValueError(f"{key}: give a{' whole' if int in kinds else ''} number from {low} to {high}")
