"""The byte-level BPE tokenizer: the same surface string gives the same tokens wherever it stands."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from demo_model import words
from demo_model.mixture import LATE, draw
from demo_model.source import Source, is_held_out, pool
from demo_model.table import choices
from demo_model.template import Template

ROLES = ("system", "user", "assistant", "tool")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TAGS = [
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<tools>",
    "</tools>",
    "<tool>",
    "<python>",
    "</python>",
    "<reply>",
    "</reply>",
    "<result>",
    "</result>",
]

# words that may swallow the space before them: they are not copied, and prompts get a third shorter
JOINED = choices("""a|an|the|is|are|was|were|be|been|am|of|to|in|into|on|at|or|and|for|from|with|without|by|as|if|it|its
this|that|these|those|you|your|yours|I|my|me|we|our|us|he|she|his|her|they|them|their|what|which|who
where|when|why|how|do|does|did|can|could|would|will|should|may|must|not|no|yes|have|has|had|about|also
please|tell|know|called|used|using|all|any|each|more|than|then|there|here|so|but|only
one|two|up|out|over|under|before|after|again|now|want|need|said""")

CLUSTERS = [
    '{"name": "',
    '", "arguments": {}',
    '", "arguments": {"',
    '": {"',
    '": {}',
    '": ["',
    '": "',
    "': '",
    '", "',
    "', '",
    '"]}}',
    '"]',
    '"}}',
    "}}",
    '": ',
    "': ",
    ', "',
    '{"',
    "{'",
    '"}',
    "'}",
    '("',
    '")',
    "[[",
    "]]",
    "\\n",
    ": ",
    ", ",
    ". ",
    "? ",
    "! ",
]


def _escaped(text: str) -> str:
    return "".join("\\" + c if c in "\\{}[]().?*+|^$" else c for c in text)


def pattern() -> str:
    """The regular expression that cuts text into pieces, none of which a merge may cross."""
    joined = " (?:" + "|".join(sorted(set(JOINED), key=len, reverse=True)) + r")(?![\p{L}\p{M}\p{N}_])"
    clusters = "|".join(_escaped(c) for c in CLUSTERS)
    letters = r"\p{Lu}+(?!\p{Ll})|\p{Lu}?[\p{Ll}\p{M}]+|\p{L}"
    return rf"{joined}|{clusters}|{letters}|\p{{N}}|\n+| +|-+|#+|=+|[^\s\p{{L}}\p{{N}}]|\s"


def blank() -> Tokenizer:
    """A tokenizer without merges."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern()), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def corpus(template: Template, conversations: int) -> Iterator[str]:
    """Text to learn merges from: conversations, the word pools, and many invented words."""
    source = Source("tokenizer")
    for _ in range(conversations):
        yield template.render(draw(source, LATE))
    for _ in range(conversations // 2):
        yield " ".join(
            source.any((source.invented, source.name, source.place, source.path, source.code))() for _ in range(12)
        )
    # a held-out word that is one token would be a token that training never sees
    pools = [w for name in vars(words) if name.isupper() for w in getattr(words, name) if not is_held_out(w)]
    yield from pools * 20


def train(template: Template, size: int, conversations: int = 25_000) -> Tokenizer:
    """Learn a vocabulary of `size` tokens."""
    tokenizer = blank()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL + TAGS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(template, conversations), trainer)
    # the tags are words of the language: they show when decoded, unlike the turn markers
    data = json.loads(tokenizer.to_str())
    for added in data["added_tokens"]:
        added["special"] = added["content"] in SPECIAL
    return Tokenizer.from_str(json.dumps(data))


def scattered(tokenizer: Tokenizer, source: Source) -> Tokenizer:
    """The same vocabulary without some of its merges, half of the words that are copied among them.

    To a model that knows most words as single tokens an unknown word is a strange thing, spelt in pieces; a
    conversation that is cut by such a tokenizer spells known words in pieces too, alike wherever they stand.
    """
    data = json.loads(tokenizer.to_str())
    model = data["model"]
    model["merges"] = [merge for merge in model["merges"] if not source.chance(_dropped("".join(merge)))]
    return Tokenizer.from_str(json.dumps(data))


def _dropped(token: str) -> float:
    """How likely a scattered tokenizer lacks the merge that makes this token."""
    if len(token) < 3 or not (token.isascii() and token.isalpha()) or any(token in role for role in ROLES):
        return 0.0
    return 0.5 if token.lower() in slot_words() else 0.12


@cache
def slot_words() -> frozenset[str]:
    """The words that slots are filled with, in lower case."""
    return frozenset(w.lower() for name in vars(words) if name.isupper() and name != "COMMON" for w in pool(name))


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that is known to exist."""
    number = tokenizer.token_to_id(token)
    assert number is not None
    return number


def save(tokenizer: Tokenizer, folder: Path, context: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
