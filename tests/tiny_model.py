"""A tiny model folder of random weights with a real tokenizer and chat template, for the tests."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    from tokenizers import Tokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKUP = ("<think>", "</think>", "<tool_call>", "</tool_call>")
HEAD_DIM = 16


def build(
    folder: Path,
    *,
    vocab_size: int = 768,
    layers: int = 2,
    hidden: int = 64,
    context: int = 8192,
    model_type: str = "llama",
    seed: int = 0,
) -> Path:
    """Build the model in `folder`, whole or not at all; a folder that holds a model already stays as it is.

    `vocab_size` is the most tokens the tokenizer gets (its text has pairs for about 1,030), `hidden`
    a multiple of 32, `context` in tokens, `model_type` one whose weights mlx-lm names as llama's. float32.
    """
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        tokenizer = _write_tokenizer(unfinished, vocab_size, context)
        config = _config(tokenizer, layers, hidden, context, model_type)
        _write_weights(unfinished / "model.safetensors", config, seed)
        _write_json(unfinished / "generation_config.json", {"eos_token_id": config["eos_token_id"]})
        _write_json(unfinished / "config.json", config)
        put(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def put(finished: Path, folder: Path) -> None:
    finished.chmod(0o755)
    try:
        finished.rename(folder)
    except OSError:
        # Another process may have built the same model first.
        if not (folder / "config.json").exists():
            raise


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _config(tokenizer: "Tokenizer", layers: int, hidden: int, context: int, model_type: str) -> dict[str, Any]:
    return {
        "model_type": model_type,
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // HEAD_DIM,
        "num_key_value_heads": hidden // HEAD_DIM // 2,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "vocab_size": tokenizer.get_vocab_size(),
        "eos_token_id": [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")],
    }


def _write_weights(path: Path, config: dict[str, Any], seed: int) -> None:
    import numpy
    from safetensors.numpy import save_file

    rng = numpy.random.default_rng(seed)
    weights = {name: _draw(rng, shape) for name, shape in _shapes(config).items()}
    # Small rows make small logits: a random model should seldom open a thought or a tool call.
    weights["model.embed_tokens.weight"][-len(MARKUP) :] *= 0.1
    save_file(weights, path, metadata={"format": "mlx"})


def _draw(rng: "numpy.random.Generator", shape: tuple[int, ...]) -> "numpy.ndarray[Any, numpy.dtype[numpy.float32]]":
    import numpy

    if len(shape) == 1:
        return numpy.ones(shape, numpy.float32)
    # Logits then have a spread of two: neither one token for ever nor every token alike.
    return rng.normal(0, 2 / shape[1] ** 0.5, shape).astype(numpy.float32)


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries, keys = config["num_attention_heads"] * HEAD_DIM, config["num_key_value_heads"] * HEAD_DIM
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {
        f"model.layers.{number}.{name}.weight": shape
        for number in range(config["num_hidden_layers"])
        for name, shape in layer.items()
    }
    if config["model_type"] == "qwen2":
        shapes |= {
            name.replace("weight", "bias"): (shape[0],)
            for name, shape in shapes.items()
            if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight"))
        }
    return shapes | {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}


def _write_tokenizer(folder: Path, vocab_size: int, context: int) -> "Tokenizer":
    tokenizer = _train(vocab_size)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": context,
            "clean_up_tokenization_spaces": False,
        },
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return tokenizer


def _train(vocab_size: int) -> "Tokenizer":
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(MARKUP),
        min_frequency=1,
        show_progress=False,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXT.splitlines(keepends=True), trainer)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKUP])
    return tokenizer


# Every newline is spelled out, so that it renders the same whether blocks are trimmed or not.
# The words `tool_call.name` are what mlx-lm knows this way of calling by.
CHAT_TEMPLATE = """\
{%- set system = messages[0].content if messages and messages[0].role == "system" else "" -%}
{%- if system or tools -%}
{{- "<|im_start|>system\\n" + system -}}
{%- if tools -%}
{{- ("\\n\\n" if system else "") + "You may call these tools:\\n" -}}
{%- for tool in tools -%}
{{- tool | tojson -}}{{- "\\n" -}}
{%- endfor -%}
{{- 'To call one, answer with <tool_call>{"name": its name, "arguments": its arguments}</tool_call>.' -}}
{%- endif -%}
{{- "<|im_end|>\\n" -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == "assistant" -%}
{{- "<|im_start|>assistant\\n" + (message.content or "") -}}
{%- for call in message.tool_calls or [] -%}
{%- set tool_call = call.function if call.function is defined else call -%}
{%- set arguments = tool_call.arguments if tool_call.arguments is string else tool_call.arguments | tojson -%}
{{- '\\n<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' -}}{{- arguments -}}{{- "}\\n</tool_call>" -}}
{%- endfor -%}
{{- "<|im_end|>\\n" -}}
{%- elif message.role != "system" or not loop.first -%}
{{- "<|im_start|>" + message.role + "\\n" + message.content + "<|im_end|>\\n" -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- "<|im_start|>assistant\\n" -}}
{%- if enable_thinking is defined and enable_thinking -%}
{{- "<think>\\n" -}}
{%- endif -%}
{%- endif -%}
"""

TEXT = """\
The kitchen floor was laid in the spring, when the house still smelled of plaster and the windows had no glass. \
Every tile came from a small workshop near the river, where two brothers pressed the clay by hand, dried it in the \
wind and fired it slowly for three days and nights. No two of them are quite the same: one is a little darker, another \
has a fingerprint in its corner, and if you look closely you can tell which side lay nearest to the fire.

A computer that answers questions works in a similar way. It reads what was written, piece by piece, and puts the next \
piece beside the last one until a pattern appears. "What should I do today?" someone asks. "That depends," it says, \
"on what you would like to remember tomorrow." Then it waits, because there is nothing more to say until the next \
question comes. Sometimes it thinks before it speaks; sometimes it calls for help: it looks into a file, adds a few \
numbers, opens a page, or asks about the weather in Paris, Tokyo, Nairobi and Lima.

First, boil a litre of water with one spoon of salt. Second, put in 250 grams of pasta and stir. Third, wait for about \
eleven minutes. Meanwhile warm the oil, cut the garlic, and let the tomatoes cook gently. Drain, mix, and serve at once.

def add(first, second):
    return first + second

for number in range(10):
    print(number, add(number, 1))

{"name": "get_weather", "arguments": {"city": "Zürich", "unit": "celsius", "days": 7, "detailed": true, "notes": null}}

Zoë went to the café. Grüße aus München, größer als gestern. ¿Dónde está la biblioteca? Le garçon a mangé une crêpe. \
你好,世界。今天天气很好。こんにちは、元気ですか。안녕하세요. Привет, как дела? Καλημέρα κόσμε. مرحبا بالعالم. नमस्ते. 🙂

In the evening the two of them sat on the step and counted the birds that came home over the hill: twelve, thirteen, \
perhaps fourteen. "We ought to write this down," she said. He laughed, for he had never kept a diary, yet the next \
morning he bought a blue notebook and a pencil, and on its first page he wrote the date, the wind, and the number \
of birds.
"""
