"""Fields of every request that generates text: sampling, limits, constraints, streaming."""

import json
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

import app.services.generation as gen
from app.dto.shared.adapters import AdapterScale, scales
from app.dto.shared.base import Body, RequestBody, RequestLimits, no_empty_stop
from app.dto.shared.samplers import parse
from app.services.errors import InvalidRequest
from app.services.json_schema.enforcement import Binding

_TOKEN = re.compile("[0-9]{1,9}")
_BREAKERS, _DRY_BASE = gen.Sampling().dry_breakers, gen.Sampling().dry_base
_NUMBER = re.compile("-?[0-9]+")
_BANNED = -1e9  # a logit that is never drawn; an infinity would be no number where every token is banned
_MOST_BIASES = 65536


def _few_biases(bias: Any) -> Any:
    """Count them before they are looked at."""
    if isinstance(bias, dict | list) and len(bias) > _MOST_BIASES:
        raise ValueError(f"more than {_MOST_BIASES} biases")
    return bias


Biases = Annotated[dict[str, float | bool] | list[list[int | float | bool | str]], BeforeValidator(_few_biases)]


class StreamOptions(Body):
    """What else a stream should carry."""

    include_usage: bool = Field(default=False, description="end the stream with a chunk that has the usage")


class Grammar(Body):
    """A grammar with its language."""

    type: Literal["gbnf", "lark"] = Field(description="language of the grammar")
    grammar: str = Field(description="text of the grammar")


class SamplingFields(RequestBody):
    """A request for generated text, of any dialect that has llama.cpp's extras."""

    model: str | None = None
    stream: bool = False
    max_tokens: int | None = Field(default=None, ge=-1)
    max_completion_tokens: int | None = Field(default=None, ge=-1)
    n_predict: int | None = Field(default=None, ge=-1)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, lt=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    xtc_probability: float = Field(default=0.0, ge=0, le=1)
    xtc_threshold: float = Field(default=0.1, ge=0, le=1)
    typical_p: float | None = Field(default=None, ge=0)
    typ_p: float | None = Field(default=None, ge=0)
    top_n_sigma: float = Field(default=-1.0, ge=-1000, le=1000)
    dynatemp_range: float = Field(default=0.0, ge=0, le=100)
    dynatemp_exponent: float = Field(default=1.0, ge=0, le=100)
    min_keep: int = Field(default=0, ge=0, lt=2**31)
    adaptive_target: float = Field(default=-1.0, le=1)
    samplers: str | list[str] | None = Field(default=None, max_length=256, examples=[["top_k", "min_p", "temperature"]])
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)
    stop: str | list[str] | None = None
    presence_penalty: float = Field(default=0.0, ge=-100, le=100)
    frequency_penalty: float = Field(default=0.0, ge=-100, le=100)
    # Less takes float32 out of its range: what a grammar forbids would be drawn.
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    repeat_penalty: float | None = Field(default=None, ge=0.01, le=100)
    repeat_last_n: int | None = Field(default=None, ge=-1, lt=2**31)
    dry_multiplier: float = Field(default=0.0, ge=0, le=100)
    dry_base: float = Field(default=1.75, ge=0, le=100)
    dry_allowed_length: int = Field(default=2, ge=0, lt=2**31)
    dry_penalty_last_n: int = Field(default=64, ge=-1, lt=2**31)
    dry_sequence_breakers: list[str] = Field(default=list(_BREAKERS), min_length=1, max_length=32)
    logit_bias: Biases = Field(default_factory=dict, examples=[{"42": -100}])
    ignore_eos: bool = False
    json_schema: dict[str, Any] = Field(default_factory=dict)
    grammar: str | Grammar = ""
    regex: str | None = Field(default=None, min_length=1)
    choice: list[str] | None = Field(default=None, min_length=1)
    lora: list[AdapterScale] | None = None
    return_progress: bool = False
    timings_per_token: bool = False
    id_slot: int = Field(default=-1, ge=-1, lt=2**31)
    sse_ping_interval: float | None = Field(default=None, ge=-1, le=3600)

    _no_empty_stop = field_validator("stop")(no_empty_stop)

    @field_validator("dry_sequence_breakers")
    @classmethod
    def _no_empty_breaker(cls, breakers: list[str]) -> list[str]:
        if not all(text.encode(errors="ignore") for text in breakers):  # half an emoji is no text
            raise ValueError("a text may not be empty")
        return breakers

    @field_validator("logit_bias")
    @classmethod
    def _token_ids(cls, bias: dict[str, float | bool] | list[list[Any]]) -> dict[str, float | bool] | list[list[Any]]:
        pairs = list(bias.items()) if isinstance(bias, dict) else bias
        if any(len(pair) != 2 or pair[1] is True or isinstance(pair[1], str) for pair in pairs):
            raise ValueError("an entry is a token id or a text, and its bias or false")
        for token, value in pairs:
            is_text = isinstance(token, str) and (isinstance(bias, list) or not _NUMBER.fullmatch(token))
            if not token if is_text else not _TOKEN.fullmatch(str(token)):
                raise ValueError(f"'{str(token)[:32]}' is no token id")
            if not -100 <= value <= 100:
                raise ValueError(f"the bias of token {str(token)[:32]} is not between -100 and 100")
        return bias

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The texts that end the answer."""
        return tuple([self.stop] if isinstance(self.stop, str) else self.stop or ())

    @property
    def slot(self) -> int | None:
        """The slot that the request names, None for any."""
        return None if self.id_slot == -1 else self.id_slot

    @property
    def delivery(self) -> gen.Delivery:
        """How the answer is sent."""
        return gen.Delivery(self.stream, self.timings_per_token)

    def ping_seconds(self, default: float) -> float:
        """Seconds of silence after which a stream gets a comment line."""
        return default if self.sse_ping_interval is None else self.sse_ping_interval

    def check(self, limits: RequestLimits) -> None:
        """Raise AppError for what is refused by name and for what is too much."""
        self.refuse()
        limits.check_stop(self.stop_strings, "stop")

    def sampling(self) -> gen.Sampling:
        """Translate the sampling fields to the engine's vocabulary."""
        window = None if self.repeat_last_n in (None, -1) else self.repeat_last_n
        off = window == 0
        repetition = self.repetition_penalty if self.repetition_penalty is not None else self.repeat_penalty
        return gen.Sampling(
            temperature=self.temperature,
            top_k=None if self.top_k is None else max(0, self.top_k),
            top_p=self.top_p,
            min_p=self.min_p,
            xtc_probability=self.xtc_probability,
            xtc_threshold=self.xtc_threshold,
            seed=None if self.seed == -1 else self.seed,
            repetition_penalty=1.0 if off else repetition,
            presence_penalty=0.0 if off else self.presence_penalty,
            frequency_penalty=0.0 if off else self.frequency_penalty,
            penalty_window=window,
            logit_bias=self._biases(),
            typical_p=next((value for value in (self.typical_p, self.typ_p) if value is not None), 1.0),
            top_n_sigma=self.top_n_sigma,
            dynatemp_range=self.dynatemp_range,
            dynatemp_exponent=self.dynatemp_exponent,
            min_keep=self.min_keep,
            dry_multiplier=self.dry_multiplier,
            dry_base=self.dry_base if self.dry_base >= 1 else _DRY_BASE,
            dry_allowed_length=self.dry_allowed_length,
            dry_window=None if self.dry_penalty_last_n == -1 else self.dry_penalty_last_n,
            dry_breakers=tuple(self.dry_sequence_breakers),
            samplers=gen.SAMPLERS if self.samplers in (None, "") else parse(self.samplers)[0],
        )

    def constraint(self) -> gen.Constraint | None:
        """Give the constraint on the answer, if there is one. Raises InvalidRequest for two."""
        constraints = list(self._constraints())
        if len(constraints) > 1:
            raise InvalidRequest(
                f"{constraints[0].param} and {constraints[1].param} exclude each other", param=constraints[1].param
            )
        return constraints[0] if constraints else None

    def continuing(self, prompt: tuple[str | int | gen.Image, ...]) -> gen.GenerationRequest:
        """Ask for the continuation of a prompt that goes past the chat template."""
        return gen.GenerationRequest(
            model=self.model,
            prompt=prompt,
            sampling=self.sampling(),
            max_tokens=self.token_limit(),
            stop=self.stop_strings,
            slot=self.slot,
            ignore_eos=self.ignore_eos,
            lora=self.adapters(),
            constraint=self.constraint(),
            split_reasoning=False,
            delivery=self.delivery,
        )

    def adapters(self) -> dict[int, float] | None:
        """Give the scale of each adapter by number, None for the usual scales."""
        return None if self.lora is None else scales(self.lora)

    def token_limit(self) -> int | None:
        """Give the most tokens of the answer, None for as many as the context holds."""
        limits = (self.n_predict, self.max_completion_tokens, self.max_tokens)
        limit = next((value for value in limits if value is not None), -1)
        return None if limit == -1 else limit

    def _sent_fields(self) -> dict[str, Any]:
        fields = super()._sent_fields()
        if self.adaptive_target < 0:
            fields.pop("adaptive_target", None)  # clients send that it is off
        return fields

    def _unknown(self) -> Iterator[str]:
        yield from super()._unknown()
        yield from (f"samplers.{name}" for name in parse(self.samplers or "")[1])

    @cached_property
    def binding(self) -> Binding:
        """Give the grammar of the answer."""
        return Binding(self.constraint())

    def _constraints(self) -> Iterator[gen.Constraint]:
        if self.json_schema:
            yield gen.Constraint("json_schema", json.dumps(self.json_schema), "json_schema")
        if self.grammar:
            language = self.grammar.type if isinstance(self.grammar, Grammar) else "gbnf"
            text = self.grammar.grammar if isinstance(self.grammar, Grammar) else self.grammar
            yield gen.Constraint(language, text, "grammar")
        if self.regex:
            yield gen.Constraint("regex", self.regex, "regex")
        if self.choice:
            yield gen.Constraint("choice", json.dumps(self.choice), "choice")

    def _biases(self) -> dict[int | str, float]:
        """A name in an object that is a number is a token id, any other is a text."""
        by_name = isinstance(self.logit_bias, dict)
        pairs: Any = self.logit_bias.items() if isinstance(self.logit_bias, dict) else self.logit_bias
        return {
            token if isinstance(token, str) and not (by_name and _TOKEN.fullmatch(token)) else int(token): (
                _BANNED if value is False else float(value)
            )
            for token, value in pairs
        }
