"""How each architecture names its numbers in config.json, and its tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from app.services.engine.encoders.bert import Bert, BertConfig
from app.services.engine.encoders.head import HeadConfig
from app.services.engine.encoders.layers import ACTIVATIONS
from app.services.engine.encoders.modern_bert import ModernBert, ModernBertConfig
from app.services.errors import LoadFailed


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors of an architecture: ours by theirs, of layers without the number that comes after `layers`."""

    layers: str
    layer: Mapping[str, str]
    body: Mapping[str, str]
    head: Mapping[str, str]
    head_activation: str = "tanh"

    def name(self, theirs: str) -> str | None:
        """Give our name of a tensor; None for one that is not needed."""
        module, _, leaf = _PREFIX.sub("", theirs, count=1).rpartition(".")
        leaf = _OLD_LEAVES.get(leaf, leaf)
        if match := re.fullmatch(rf"{re.escape(self.layers)}\.(\d+)\.(.+)", module):
            ours = self.layer.get(match[2])
            return ours and f"body.layers.{match[1]}.{ours}.{leaf}"
        ours = self.body.get(module)
        if ours is not None:
            return f"body.{ours}.{leaf}"
        return f"head.{self.head[module]}.{leaf}" if module in self.head else None


_PREFIX = re.compile(r"^(bert|roberta|distilbert|mpnet|model)\.")
_OLD_LEAVES = {"gamma": "weight", "beta": "bias"}  # of normalization
_EMBEDDINGS = {
    "embeddings.word_embeddings": "words",
    "embeddings.position_embeddings": "positions",
    "embeddings.token_type_embeddings": "types",
    "embeddings.LayerNorm": "norm",
}
_FEED_FORWARD = {
    "intermediate.dense": "up",
    "output.dense": "down",
    "output.LayerNorm": "norm",
}
_BERT = Layout(
    layers="encoder.layer",
    layer={
        "attention.self.query": "query",
        "attention.self.key": "key",
        "attention.self.value": "value",
        "attention.output.dense": "out",
        "attention.output.LayerNorm": "attention_norm",
        **_FEED_FORWARD,
    },
    body=_EMBEDDINGS,
    head={"pooler.dense": "dense", "classifier": "out"},
)
_ROBERTA = replace(_BERT, head={"classifier.dense": "dense", "classifier.out_proj": "out"})
LAYOUTS: Mapping[str, Layout] = {
    "bert": _BERT,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": Layout(
        layers="encoder.layer",
        layer={
            "attention.attn.q": "query",
            "attention.attn.k": "key",
            "attention.attn.v": "value",
            "attention.attn.o": "out",
            "attention.LayerNorm": "attention_norm",
            **_FEED_FORWARD,
        },
        body=_EMBEDDINGS | {"encoder.relative_attention_bias": "distances"},
        head=_ROBERTA.head,
    ),
    "distilbert": Layout(
        layers="transformer.layer",
        layer={
            "attention.q_lin": "query",
            "attention.k_lin": "key",
            "attention.v_lin": "value",
            "attention.out_lin": "out",
            "sa_layer_norm": "attention_norm",
            "ffn.lin1": "up",
            "ffn.lin2": "down",
            "output_layer_norm": "norm",
        },
        body=_EMBEDDINGS,
        head={"pre_classifier": "dense", "classifier": "out"},
        head_activation="relu",
    ),
    "modernbert": Layout(
        layers="layers",
        layer={
            "attn_norm": "attention_norm",
            "attn.Wqkv": "projection",
            "attn.Wo": "out",
            "mlp_norm": "norm",
            "mlp.Wi": "up",
            "mlp.Wo": "down",
        },
        body={"embeddings.tok_embeddings": "words", "embeddings.norm": "first_norm", "final_norm": "norm"},
        head={"head.dense": "dense", "head.norm": "norm", "classifier": "out"},
        head_activation="gelu",
    ),
}


def make_body(config: Mapping[str, Any]) -> Bert | ModernBert:
    """Make the body of an encoder with weights of no meaning, by its config.json. Raises LoadFailed."""
    return ModernBert(_modern_bert(config)) if config["model_type"] == "modernbert" else Bert(_bert(config))


def size(config: Mapping[str, Any]) -> int:
    """Give the size of the hidden states."""
    return _number(config, "hidden_size", "dim")


def head_config(config: Mapping[str, Any]) -> HeadConfig:
    """Say how the head of an encoder that ranks documents is built."""
    is_modern = config["model_type"] == "modernbert"
    layout = LAYOUTS[config["model_type"]]
    return HeadConfig(
        size=size(config),
        activation=_activation(config, "classifier_activation", default=layout.head_activation)
        if is_modern
        else layout.head_activation,
        epsilon=_real(config, "norm_eps", 1e-5) if is_modern else None,
        norm_bias=config.get("norm_bias") is True,
        dense_bias=not is_modern or config.get("classifier_bias") is True,
        is_mean=is_modern and config.get("classifier_pooling") == "mean",
    )


def _bert(config: Mapping[str, Any]) -> BertConfig:
    kind = config["model_type"]
    follows_padding = kind not in ("bert", "distilbert")
    if (scheme := config.get("position_embedding_type", "absolute")) != "absolute":
        raise LoadFailed(f"config.json asks for positions of type {scheme!r}, which this server does not know.")
    return BertConfig(
        size=size(config),
        layers=_number(config, "num_hidden_layers", "n_layers"),
        heads=_number(config, "num_attention_heads", "n_heads"),
        inner=_number(config, "intermediate_size", "hidden_dim"),
        vocabulary=_number(config, "vocab_size"),
        positions=_number(config, "max_position_embeddings"),
        types=0 if kind in ("mpnet", "distilbert") else _number(config, "type_vocab_size", default=2),
        first_position=_number(config, "pad_token_id", default=1) + 1 if follows_padding else 0,
        activation=_activation(config, "hidden_act", "activation"),
        epsilon=_real(config, "layer_norm_eps", 1e-12),
        has_distances=kind == "mpnet",
    )


def _modern_bert(config: Mapping[str, Any]) -> ModernBertConfig:
    layers, every = _number(config, "num_hidden_layers"), _number(config, "global_attn_every_n_layers", default=3)
    kinds = config.get("layer_types")
    if not isinstance(kinds, list) or len(kinds) != layers:
        kinds = ["sliding_attention" if index % every else "full_attention" for index in range(layers)]
    scalings = config.get("rope_parameters")
    scalings = scalings if isinstance(scalings, dict) else {}
    base = _base(scalings, "full_attention", _real(config, "global_rope_theta", 160_000.0))
    return ModernBertConfig(
        size=size(config),
        heads=_number(config, "num_attention_heads"),
        inner=_number(config, "intermediate_size"),
        vocabulary=_number(config, "vocab_size"),
        windowed=tuple(kind == "sliding_attention" for kind in kinds),
        window=_number(config, "local_attention", default=128) // 2,
        base=base,
        window_base=_base(scalings, "sliding_attention", _real(config, "local_rope_theta", base)),
        activation=_activation(config, "hidden_activation", "hidden_act"),
        epsilon=_real(config, "norm_eps", 1e-5),
        norm_bias=config.get("norm_bias") is True,
        attention_bias=config.get("attention_bias") is True,
        inner_bias=config.get("mlp_bias") is True,
    )


def _base(scalings: Mapping[str, Any], kind: str, default: float) -> float:
    scaling = scalings.get(kind)
    return _real(scaling, "rope_theta", default) if isinstance(scaling, dict) else default


def _number(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    if default is None:
        raise LoadFailed(f"config.json has no {names[0]}.")
    return default


def _real(config: Mapping[str, Any], name: str, default: float) -> float:
    value = config.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def _activation(config: Mapping[str, Any], *names: str, default: str = "gelu") -> str:
    activation = next((config[name] for name in names if name in config), default)
    if activation not in ACTIVATIONS:
        raise LoadFailed(f"config.json names the activation {activation!r}, which this server does not know.")
    return str(activation)
