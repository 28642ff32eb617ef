"""How many tokens a model's context holds: as published, else what its architecture assumes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.services import architectures

# The first that a configuration has counts. Sources: transformers' configuration classes, mlx-lm's ModelArgs, and the
# configurations of models with code of their own.
KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",  # DBRX, MPT
    "max_sequence_length",  # LLaMA 1
    "max_seq_length",
    "max_context_length",  # OpenELM
    "context_length",
    "seq_length",  # Qwen 1, ChatGLM
    "seq_len",
    "n_ctx",
    "block_size",  # Lille
)
LONGER = "model_max_length"  # where a configuration has it, it may say more: Command R, Baichuan, Kimi Linear
MOST = 2**24  # tokens; more is a slip or means "no limit", as tokenizers write 10**30
_UNKNOWN = (8_192, "assumed")


@dataclass(frozen=True, slots=True)
class ContextLength:
    """A context in tokens, and where the figure comes from."""

    tokens: int  # that are served
    model_tokens: int  # the model's own, or what is assumed of it
    source: str  # "max_position_embeddings in config.json"
    is_assumed: bool = False  # the model's files do not say it, so that the user may know better

    def limited_to(self, setting: int | None) -> "ContextLength":
        """Take a user's --context-length, which raises only what was assumed."""
        if setting is None:
            return self
        return replace(self, tokens=setting if self.is_assumed else min(setting, self.tokens))

    @property
    def can_grow(self) -> bool:
        """Whether a larger --context-length makes it longer."""
        return self.is_assumed or self.tokens < self.model_tokens


def context_length(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> ContextLength:
    """Read it from the contents of config.json and tokenizer_config.json.

    A text model inside of another has its own figure. Where scaled rotary embeddings stretch it, YaRN's factor says how
    far; of other kinds the tokenizer's figure is taken if it lies within what they stretch to: some configurations
    count them in already, some do not. Figures that only the tokenizer or the architecture has are assumed: fine-tuned
    models often carry the length of their training there.
    """
    inner = config.get("text_config")
    inner = inner if isinstance(inner, dict) else {}
    tokenizer_tokens = _count(tokenizer_config.get(LONGER))
    for source in (inner, config):
        if figure := _published(source):
            tokens, name = figure[0], f"{figure[1]} in config.json"
            reach = max((int(tokens * factor) for factor in _factors(source)), default=tokens)
            if tokens < tokenizer_tokens <= reach:
                tokens, name = tokenizer_tokens, f"{LONGER} in tokenizer_config.json"
            return ContextLength(tokens, tokens, name)
    tokens, name = max(
        (tokenizer_tokens, f"{LONGER} in tokenizer_config.json"),
        _default(str(inner.get("model_type") or ""), str(config.get("model_type"))),
    )
    return ContextLength(tokens, tokens, name, is_assumed=True)


def _published(config: Mapping[str, Any]) -> tuple[int, str] | None:
    """Give the figure of a configuration, scaled as it says, and the name of the figure."""
    figures = [(tokens, key) for key in (*KEYS, LONGER) if (tokens := _count(config.get(key)))]
    if not figures:
        return None
    tokens, key = max(figures[:1] + [figure for figure in figures if figure[1] == LONGER])
    stretched = max((_yarn(scaling) for scaling in _scalings(config)), default=0)
    return (stretched, "YaRN") if stretched > tokens else (tokens, key)


def _scalings(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Give what a configuration says of its rotary embeddings: one for all layers, or one for each kind of them."""
    for key in ("rope_scaling", "rope_parameters"):
        if isinstance(scaling := config.get(key), dict):
            yield scaling
            yield from (one for one in scaling.values() if isinstance(one, dict))


def _kind(scaling: Mapping[str, Any]) -> Any:
    return scaling.get("rope_type") or scaling.get("type")


def _yarn(scaling: Mapping[str, Any]) -> int:
    if _kind(scaling) != "yarn":
        return 0
    return min(MOST, int(_count(scaling.get("original_max_position_embeddings")) * _factor(scaling)))


def _factors(config: Mapping[str, Any]) -> Iterator[float]:
    return (_factor(scaling) for scaling in _scalings(config) if _kind(scaling) not in ("yarn", "default", None))


def _factor(scaling: Mapping[str, Any]) -> float:
    factor = scaling.get("factor")
    return float(factor) if isinstance(factor, int | float) and 1 < factor < MOST else 1.0


def _count(value: Any) -> int:
    """Give a number of tokens, 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= MOST:
        return 0
    return int(value)


def _default(*model_types: str) -> tuple[int, str]:
    """Give what transformers takes for a model that does not say it, else mlx-lm, with who says it.

    Published configurations leave out what is transformers' own default, as Gemma 3's do. Where transformers knows an
    architecture without such a figure, as recurrent ones, what mlx-lm has is none either.
    """
    for model_type in model_types:
        for name in (model_type, f"{model_type}_text"):
            if (defaults := architectures.transformers_defaults(name)) is not None:
                figure = _published(defaults)
                return (figure[0], f"transformers' default for {name}") if figure else _UNKNOWN
    for model_type in model_types:
        if figure := _published(architectures.mlx_lm_defaults(model_type)):
            return figure[0], f"mlx-lm's default for {model_type}"
    return _UNKNOWN
