"""What Ollama's requests have in common: the model's name, options, format, reasoning, and how long a model stays."""

import json
import re
from functools import cached_property
from math import isfinite
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

import app.services.generation as gen
from app.dto.openai.chat import EFFORTS, Effort, effort_kwargs
from app.dto.shared.base import Body, RequestBody, RequestLimits, no_empty_stop
from app.services.errors import InvalidRequest
from app.services.json_schema.enforcement import Binding

LATEST = ":latest"  # the tag of a name without one
_DURATION = re.compile(r"[-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h)?)+")
_NO_TIME = re.compile(r"[^1-9]*")


def _whole(value: Any) -> Any:
    """Ollama takes 10.0 for 10, as all numbers are the same to its decoder."""
    return int(value) if isinstance(value, float) and isfinite(value) else value


def _duration(value: Any) -> Any:
    if isinstance(value, str) and not _DURATION.fullmatch(value.strip()):
        raise ValueError("give seconds, or a duration such as '5m'")
    return value


Whole = Annotated[int | None, BeforeValidator(_whole)]
KeepAlive = Annotated[float | str | None, BeforeValidator(_duration)]


class OllamaOptions(Body):
    """How tokens are drawn. What is not named here has no effect."""

    seed: Whole = Field(default=None, ge=-(2**63), lt=2**64, description="seed of the answer; -1 draws one")
    num_predict: Whole = Field(
        default=None, ge=-2, lt=2**31, description="most tokens of the answer; below 0 up to the context"
    )
    temperature: float | None = Field(
        default=None, ge=0, le=100, description="sampling temperature; 0 takes the most likely token"
    )
    top_k: Whole = Field(default=None, ge=-1, lt=2**31, description="keep this many tokens; 0 or -1 is all")
    top_p: float | None = Field(default=None, ge=0, le=1, description="keep tokens of this total probability")
    min_p: float | None = Field(
        default=None, ge=0, le=1, description="keep tokens with this share of the highest probability"
    )
    typical_p: float | None = Field(default=None, ge=0, description="locally typical sampling; 1 or more is off")
    repeat_penalty: float | None = Field(
        default=None, ge=0.01, le=100, description="divides the logits of repeated tokens; 1 is off"
    )
    repeat_last_n: Whole = Field(
        default=None, ge=-1, lt=2**31, description="last tokens that penalties count; -1 is the whole answer, 0 is off"
    )
    presence_penalty: float = Field(
        default=0.0, ge=-100, le=100, description="taken off the logit of each token that came already"
    )
    frequency_penalty: float = Field(
        default=0.0, ge=-100, le=100, description="taken off a token's logit for each time that it came"
    )
    stop: str | list[str] | None = Field(default=None, description="texts that end the answer")

    _no_empty_stop = field_validator("stop")(no_empty_stop)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The texts that end the answer."""
        return tuple([self.stop] if isinstance(self.stop, str) else self.stop or ())

    @property
    def max_tokens(self) -> int | None:
        """The most tokens of the answer, None for as many as the context holds."""
        return None if self.num_predict is None or self.num_predict < 0 else self.num_predict

    def sampling(self) -> gen.Sampling:
        """Translate to the engine's vocabulary."""
        off = self.repeat_last_n == 0
        return gen.Sampling(
            temperature=self.temperature,
            top_k=None if self.top_k is None else max(0, self.top_k),
            top_p=self.top_p,
            min_p=self.min_p,
            typical_p=1.0 if self.typical_p is None else self.typical_p,
            seed=None if self.seed == -1 else self.seed,
            repetition_penalty=1.0 if off else self.repeat_penalty,
            presence_penalty=0.0 if off else self.presence_penalty,
            frequency_penalty=0.0 if off else self.frequency_penalty,
            penalty_window=None if self.repeat_last_n in (None, -1) else self.repeat_last_n,
        )


class OllamaRequest(RequestBody):
    """What every request to a model names."""

    model: str = Field(min_length=1, max_length=4096, examples=["tiles-nano"])
    keep_alive: KeepAlive = None

    @property
    def model_name(self) -> str:
        """The model as this server names it, which knows no tag for the latest."""
        return self.model.removesuffix(LATEST)

    @property
    def unloads(self) -> bool:
        """Whether the model is to leave memory once nothing runs on it."""
        if isinstance(self.keep_alive, str):
            return _NO_TIME.fullmatch(self.keep_alive) is not None
        return self.keep_alive == 0


class OllamaGenerating(OllamaRequest):
    """What requests for text have in common."""

    stream: bool = True
    options: OllamaOptions = Field(default_factory=OllamaOptions, examples=[{"temperature": 0}])
    format: str | dict[str, Any] | None = Field(default=None, examples=["json"])
    think: bool | Effort | None = None
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)

    @field_validator("format")
    @classmethod
    def _json_alone(cls, form: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
        if isinstance(form, str) and form not in ("", "json"):
            raise ValueError("give 'json' or a JSON schema")
        return form

    def common(self, limits: RequestLimits) -> gen.GenerationRequest:
        """Give all but what is to be answered. Raises InvalidRequest for what cannot be done."""
        self.refuse()
        limits.check_stop(self.options.stop_strings, "options.stop")
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs", param="top_logprobs")
        effort = self.think if isinstance(self.think, str) else None
        return gen.GenerationRequest(
            model=self.model_name,
            template_kwargs={"enable_thinking": self.think} if isinstance(self.think, bool) else effort_kwargs(effort),
            sampling=self.options.sampling(),
            max_tokens=self.options.max_tokens,
            stop=self.options.stop_strings,
            constraint=self.constraint(),
            logprobs=self.top_logprobs if self.logprobs else None,
            thinking_budget=0 if self.think is False else None,
            effort_budget=EFFORTS[effort] if effort else None,
            delivery=gen.Delivery(self.stream),
        )

    def constraint(self) -> gen.Constraint | None:
        """Give the constraint on the answer, if there is one."""
        if not self.format:
            return None
        schema = {"type": "object"} if self.format == "json" else self.format
        return gen.Constraint("json_schema", json.dumps(schema), "format")

    @cached_property
    def binding(self) -> Binding:
        """Give the grammar of the answer."""
        return Binding(self.constraint())
