"""Tiny encoders of random weights, and what they make of texts, computed with NumPy alone."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny_model import TEXT

# What rerankers are asked.
QUERY = "a small house"
DOCUMENTS = [
    "Every tile came from a small workshop near the river.",
    "one",
    "It reads what was written, piece by piece.",
    "The kitchen floor was laid in the spring, when the house still smelled of plaster.",
]

_SIZE, _INNER, _HEADS, _LAYERS, _POSITIONS = 32, 64, 4, 3, 96
_COMMON = {
    "hidden_size": _SIZE,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "intermediate_size": _INNER,
    "max_position_embeddings": _POSITIONS,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _COMMON | {"type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0},
    "xlm-roberta": _COMMON | {"type_vocab_size": 1, "hidden_act": "gelu", "layer_norm_eps": 1e-5, "pad_token_id": 1},
    "mpnet": _COMMON | {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "pad_token_id": 1},
    "distilbert": {
        "dim": _SIZE,
        "n_layers": _LAYERS,
        "n_heads": _HEADS,
        "hidden_dim": _INNER,
        "max_position_embeddings": _POSITIONS,
        "activation": "gelu",
        "pad_token_id": 0,
    },
    "modernbert": _COMMON
    | {
        "hidden_activation": "gelu",
        "norm_eps": 1e-5,
        "global_attn_every_n_layers": 3,
        "local_attention": 8,
        "global_rope_theta": 160_000.0,
        "local_rope_theta": 10_000.0,
        "pad_token_id": 0,
    },
}
_CLASSES = {"bert": "Bert", "xlm-roberta": "XLMRoberta", "mpnet": "MPNet", "distilbert": "DistilBert"}
_PREFIXES = {"bert": "bert.", "xlm-roberta": "roberta.", "mpnet": "mpnet.", "distilbert": "distilbert."}


def build(
    folder: Path,
    kind: str = "bert",
    *,
    ranks: bool = False,
    seed: int = 5,
    pooling: str | None = "mean",
    most_tokens: int | None = None,
    prompts: Mapping[str, str] | None = None,
    default_prompt: str | None = None,
    files: Mapping[str, Any] | None = None,  # further JSON files, by path
) -> Path:
    """Write an encoder's folder, with the files of sentence-transformers unless there is no pooling."""
    folder.mkdir(parents=True)
    vocabulary = _write_tokenizer(folder, pairs_as_roberta=kind == "xlm-roberta")
    suffix = "ForSequenceClassification" if ranks else "Model"
    config = CONFIGS[kind] | {
        "model_type": kind,
        "architectures": [_CLASSES.get(kind, "ModernBert") + suffix],
        "vocab_size": vocabulary,
    }
    if ranks:
        config |= {"id2label": {"0": "LABEL_0"}, "classifier_pooling": "mean"}
    from safetensors.numpy import save_file

    save_file(weights(config, seed=seed, ranks=ranks), folder / "model.safetensors", metadata={"format": "pt"})
    contents: dict[str, Any] = {"config.json": config}
    if pooling is not None and not ranks:
        parts = ("Transformer", "", "Pooling", "1_Pooling", "Normalize", "2_Normalize")
        contents["modules.json"] = [
            {"idx": i, "name": str(i), "path": parts[2 * i + 1], "type": f"sentence_transformers.models.{parts[2 * i]}"}
            for i in range(3)
        ]
        contents["1_Pooling/config.json"] = {
            f"pooling_mode_{name}": name
            == {"last": "lasttoken"}.get(pooling, f"{pooling}_token" + "s" * (pooling != "cls"))
            for name in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
        }
    if most_tokens is not None:
        contents["sentence_bert_config.json"] = {"max_seq_length": most_tokens, "do_lower_case": False}
    if prompts is not None:
        contents["config_sentence_transformers.json"] = {"prompts": prompts, "default_prompt_name": default_prompt}
    for name, content in (contents | dict(files or {})).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return folder


def _write_tokenizer(folder: Path, *, pairs_as_roberta: bool) -> int:
    """Train a tokenizer on a page of text; like many published ones it is set to cut and pad what it reads."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=600, show_progress=False, special_tokens=special)
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    pair = "[CLS] $A [SEP] [SEP] $B [SEP]" if pairs_as_roberta else "[CLS] $A [SEP] $B:1 [SEP]:1"
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=ids)
    tokenizer.enable_truncation(20)
    tokenizer.enable_padding(length=20)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    return int(tokenizer.get_vocab_size())


def shapes(config: Mapping[str, Any], *, ranks: bool) -> dict[str, tuple[int, ...]]:
    """Give the tensors of an encoder as transformers names them."""
    kind, size, inner = config["model_type"], _SIZE, _INNER

    def linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})

    def norm(name: str, *, bias: bool = True) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (size,)} | ({f"{name}.bias": (size,)} if bias else {})

    tensors: dict[str, tuple[int, ...]] = {}
    if kind == "modernbert":
        tensors["embeddings.tok_embeddings.weight"] = (config["vocab_size"], size)
        tensors |= norm("embeddings.norm", bias=False) | norm("final_norm", bias=False)
        for layer in (f"layers.{number}." for number in range(_LAYERS)):
            tensors |= {} if layer == "layers.0." else norm(f"{layer}attn_norm", bias=False)
            tensors |= linear(f"{layer}attn.Wqkv", 3 * size, size, bias=False)
            tensors |= linear(f"{layer}attn.Wo", size, size, bias=False)
            tensors |= norm(f"{layer}mlp_norm", bias=False)
            tensors |= linear(f"{layer}mlp.Wi", 2 * inner, size, bias=False)
            tensors |= linear(f"{layer}mlp.Wo", size, inner, bias=False)
        body = {f"model.{name}" if ranks else name: shape for name, shape in tensors.items()}
        head = (
            linear("head.dense", size, size, bias=False) | norm("head.norm", bias=False) | linear("classifier", 1, size)
        )
        return body | (head if ranks else {})
    tensors["embeddings.word_embeddings.weight"] = (config["vocab_size"], size)
    tensors["embeddings.position_embeddings.weight"] = (_POSITIONS, size)
    if "type_vocab_size" in config:
        tensors["embeddings.token_type_embeddings.weight"] = (config["type_vocab_size"], size)
    tensors |= norm("embeddings.LayerNorm")
    if kind == "mpnet":
        tensors["encoder.relative_attention_bias.weight"] = (32, _HEADS)
    names = NAMES[kind]
    for number in range(_LAYERS):
        layer = f"{names['layer']}.{number}."
        for part in ("query", "key", "value", "out"):
            tensors |= linear(layer + names[part], size, size)
        tensors |= norm(layer + names["attention_norm"]) | norm(layer + names["norm"])
        tensors |= linear(layer + names["up"], inner, size) | linear(layer + names["down"], size, inner)
    if not ranks:
        return tensors
    body = {_PREFIXES[kind] + name: shape for name, shape in tensors.items()}
    dense, out = HEADS[kind]
    return body | linear(dense, size, size) | linear(out, 1, size)


_BERT_NAMES = {
    "layer": "encoder.layer",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}
NAMES = {
    "bert": _BERT_NAMES,
    "xlm-roberta": _BERT_NAMES,
    "mpnet": _BERT_NAMES
    | {
        "query": "attention.attn.q",
        "key": "attention.attn.k",
        "value": "attention.attn.v",
        "out": "attention.attn.o",
        "attention_norm": "attention.LayerNorm",
    },
    "distilbert": {
        "layer": "transformer.layer",
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "out": "attention.out_lin",
        "attention_norm": "sa_layer_norm",
        "up": "ffn.lin1",
        "down": "ffn.lin2",
        "norm": "output_layer_norm",
    },
}
HEADS = {
    "bert": ("bert.pooler.dense", "classifier"),
    "xlm-roberta": ("classifier.dense", "classifier.out_proj"),
    "mpnet": ("classifier.dense", "classifier.out_proj"),
    "distilbert": ("pre_classifier", "classifier"),
}


def weights(config: Mapping[str, Any], *, seed: int, ranks: bool) -> dict[str, Any]:
    """Draw the tensors. Biases and norms are not trivial, so that one in the wrong place shows."""
    draw = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes(config, ranks=ranks).items():
        if len(shape) == 2:
            array = draw.normal(0, 1.5 / shape[1] ** 0.5, shape)
        else:
            array = draw.normal(float(name.endswith("weight")), 0.2, shape)
        arrays[name] = array.astype(np.float32)
    return arrays


class Reference:
    """The forward pass of a folder, one text at a time and with NumPy alone."""

    def __init__(self, folder: Path) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        self.config = json.loads((folder / "config.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self._raw = load_file(folder / "model.safetensors")
        self._kind = self.config["model_type"]
        self._prefix = next((p for p in (*_PREFIXES.values(), "model.") if any(n.startswith(p) for n in self._raw)), "")

    def vector(self, text: str, pooling: str = "mean") -> Any:
        """Give the vector of a text, of length 1."""
        hidden = self.hidden(self.tokenizer.encode(text))
        ways = {"mean": hidden.mean(0), "max": hidden.max(0), "cls": hidden[0], "last": hidden[-1]}
        return ways[pooling] / np.linalg.norm(ways[pooling])

    def score(self, query: str, document: str) -> float:
        """Give the number that the head makes of a pair."""
        hidden = self.hidden(self.tokenizer.encode(query, document))
        if self._kind == "modernbert":
            pooled = _norm(
                gelu(hidden.mean(0) @ self._raw["head.dense.weight"].T), self._raw["head.norm.weight"], 0, 1e-5
            )
            return float((pooled @ self._raw["classifier.weight"].T + self._raw["classifier.bias"])[0])
        dense, out = HEADS[self._kind]
        inner = hidden[0] @ self._raw[f"{dense}.weight"].T + self._raw[f"{dense}.bias"]
        inner = np.maximum(inner, 0) if self._kind == "distilbert" else np.tanh(inner)
        return float((inner @ self._raw[f"{out}.weight"].T + self._raw[f"{out}.bias"])[0])

    def hidden(self, encoding: Any) -> Any:
        """Give the last hidden states (length, size) of an encoded text."""
        modern = self._modern if self._kind == "modernbert" else self._bert
        return modern(np.array(encoding.ids), np.array(encoding.type_ids))

    def _get(self, name: str) -> Any:
        return self._raw[self._prefix + name].astype(np.float64)

    def _linear(self, name: str, x: Any) -> Any:
        return x @ self._get(f"{name}.weight").T + self._get(f"{name}.bias")

    def _layer_norm(self, name: str, x: Any) -> Any:
        epsilon = self.config.get("layer_norm_eps", 1e-12)
        return _norm(x, self._get(f"{name}.weight"), self._get(f"{name}.bias"), epsilon)

    def _bert(self, tokens: Any, types: Any) -> Any:
        names, kind = NAMES[self._kind], self._kind
        first = self.config["pad_token_id"] + 1 if kind in ("xlm-roberta", "mpnet") else 0
        x = self._get("embeddings.word_embeddings.weight")[tokens]
        x = x + self._get("embeddings.position_embeddings.weight")[first : first + len(tokens)]
        if "type_vocab_size" in self.config:
            x = x + self._get("embeddings.token_type_embeddings.weight")[types]
        x = self._layer_norm("embeddings.LayerNorm", x)
        bias = _distances(self._get("encoder.relative_attention_bias.weight"), len(tokens)) if kind == "mpnet" else 0.0
        heads = self.config.get("num_attention_heads") or self.config["n_heads"]
        for number in range(self.config.get("num_hidden_layers") or self.config["n_layers"]):
            layer = f"{names['layer']}.{number}."
            parts = [self._linear(layer + names[part], x) for part in ("query", "key", "value")]
            attention = _attention(*(_heads(part, heads) for part in parts), bias)
            x = self._layer_norm(layer + names["attention_norm"], x + self._linear(layer + names["out"], attention))
            inner = gelu(self._linear(layer + names["up"], x))
            x = self._layer_norm(layer + names["norm"], x + self._linear(layer + names["down"], inner))
        return x

    def _modern(self, tokens: Any, types: Any) -> Any:
        config = self.config
        x = _norm(self._get("embeddings.tok_embeddings.weight")[tokens], self._get("embeddings.norm.weight"), 0, 1e-5)
        distance = np.abs(np.arange(len(tokens))[:, None] - np.arange(len(tokens))[None])
        for number in range(config["num_hidden_layers"]):
            layer, is_global = f"layers.{number}.", number % config["global_attn_every_n_layers"] == 0
            normed = x if number == 0 else _norm(x, self._get(f"{layer}attn_norm.weight"), 0, 1e-5)
            parts = np.split(normed @ self._get(f"{layer}attn.Wqkv.weight").T, 3, axis=1)
            query, key, value = (_heads(part, config["num_attention_heads"]) for part in parts)
            base = config["global_rope_theta"] if is_global else config["local_rope_theta"]
            bias = 0.0 if is_global else np.where(distance > config["local_attention"] // 2, -1e9, 0.0)
            x = (
                x
                + _attention(_turn(query, base), _turn(key, base), value, bias) @ self._get(f"{layer}attn.Wo.weight").T
            )
            normed = _norm(x, self._get(f"{layer}mlp_norm.weight"), 0, 1e-5)
            inner, gate = np.split(normed @ self._get(f"{layer}mlp.Wi.weight").T, 2, axis=1)
            x = x + (gelu(inner) * gate) @ self._get(f"{layer}mlp.Wo.weight").T
        return _norm(x, self._get("final_norm.weight"), 0, 1e-5)


def gelu(x: Any) -> Any:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _norm(x: Any, weight: Any, bias: Any, epsilon: float) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * weight + bias


def _heads(x: Any, heads: int) -> Any:
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def _attention(query: Any, key: Any, value: Any, bias: Any) -> Any:
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1]) + bias
    odds = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = odds / odds.sum(-1, keepdims=True) @ value
    return mixed.transpose(1, 0, 2).reshape(mixed.shape[1], -1)


def _turn(x: Any, base: float) -> Any:
    """Turn by position, each dimension of the first half with its fellow of the second."""
    half = x.shape[-1] // 2
    angle = np.arange(x.shape[1])[:, None] * base ** (-np.arange(half) / half)[None]
    first, second = x[..., :half], x[..., half:]
    return np.concatenate(
        [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)], axis=-1
    )


def _distances(table: Any, length: int) -> Any:
    """Give MPNet's bias (heads, length, length): 16 buckets ahead and 16 behind, the first 8 of them exact."""
    bias = np.zeros((table.shape[1], length, length))
    for query in range(length):
        for key in range(length):
            far = abs(key - query)
            bucket = far if far < 8 else min(15, 8 + int(math.log(far / 8) / math.log(128 / 8) * 8))
            bias[:, query, key] = table[bucket + (16 if key > query else 0)]
    return bias


def cosines(one: Sequence[Any], other: Sequence[Any]) -> Any:
    """Give the cosine of each vector with its fellow."""
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
