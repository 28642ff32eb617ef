"""How byte-level BPE splits a text before it merges: by the name that a GGUF has for it (`tokenizer.ggml.pre`).

The expressions are those of the models' own tokenizers, as regular expressions of Oniguruma. Where several stand for a
name, each splits what the one before has left.
"""

from dataclasses import dataclass

_CONTRACTION = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_DIGITS, _LINES = r"\p{N}{1,3}", r"[\r\n]*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _words(
    digits: str,
    letters: str = r"\p{L}+",
    start: str = f"{_CONTRACTION}|",
    other: str = r"\p{L}\p{N}",
    after: str = _LINES,
) -> str:
    """Give the expression of GPT-4's kind: words with what stands before them, digits, punctuation, spaces."""
    return rf"{start}[^\r\n\p{{L}}\p{{N}}]?{letters}|{digits}| ?[^\s{other}]+{after}|{_SPACES}"


def _camel(digits: str, end: str = "", upper: str = _UPPER, lower: str = _LOWER, after: str = r"[\r\n/]*") -> str:
    """Give the expression of GPT-4o's kind, which splits words before capitals."""
    words = "|".join(rf"[^\r\n\p{{L}}\p{{N}}]?{upper}{a}{lower}{b}{end}" for a, b in (("*", "+"), ("+", "*")))
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+{after}|{_SPACES}"


_THREE_DIGITS, _DIGIT = _words(_DIGITS), _words(r"\p{N}")
_DEEPSEEK = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
)
_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
# The cased letters that DeepSeek's first tokenizer names one by one: those of an older Unicode.
_NEWER_LETTERS = (
    "\u0560-\u0588\u10c7-\u10cd\u10d0-\u10ff\u1c80-\u1c8a\u2d00-\u2d2d\ua790-\ua7fa\uab30-\uab68\U00010570-\U000105bc"
    "\U00010d50-\U00010d85\U00016e40-\U00016e7f\U0001d400-\U0001dfff"
)
_DEEPSEEK_LETTERS = rf"[[\p{{Lu}}\p{{Ll}}\p{{Lt}}]&&[^{_NEWER_LETTERS}]]"
_NO_HAN_UPPER, _NO_HAN_LOWER = (rf"[{letters[1:-1]}&&[^\p{{Han}}]]" for letters in (_UPPER, _LOWER))
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"


@dataclass(frozen=True)
class PreTokenizer:
    """The expressions, and what a vocabulary of this kind does unless its file says otherwise."""

    expressions: tuple[str, ...]
    ignore_merges: bool = False  # whether a word that is a token stays whole
    add_bos: bool = False


_LLAMA3 = PreTokenizer((_THREE_DIGITS,), ignore_merges=True, add_bos=True)
_BY_EXPRESSIONS = {
    ("gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4", "mpt", "olmo", "jais", "trillion"): (_GPT2,),
    ("granite-docling",): (_GPT2,),
    ("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"): (r"\p{N}", _GPT2),
    ("dbrx", "smaug-bpe", "chatglm-bpe"): (_THREE_DIGITS,),
    ("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan"): (_DIGIT,),
    ("solar-open", "grok-2"): (_DIGIT,),
    ("qwen35",): (_words(r"\p{N}", r"[\p{L}\p{M}]+", other=r"\p{L}\p{M}\p{N}"),),
    ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"): _DEEPSEEK,
    ("deepseek-coder",): (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, r"\p{N}"),
    ("deepseek-llm",): (
        r"[\r\n]",
        rf"\s?{_DEEPSEEK_LETTERS}+",
        "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
        r"\s+$",
        _CJK,
        r"\p{N}+",
    ),
    ("kimi-k2",): (rf"\p{{Han}}+|{_camel(_DIGITS, f'{_CONTRACTION}?', _NO_HAN_UPPER, _NO_HAN_LOWER, _LINES)}",),
    ("seed-coder",): (_words(r"\p{N}", after=""),),
    ("ufakzeka",): (_words(r"\p{N}", start=""),),
    ("superbpe",): (r"\p{N}+", r"(?=(\d{3})+(?!\d))"),
    ("falcon",): (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"),
    ("default", ""): (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    ("bloom", "poro-chat", "gpt3-finnish"): (_BLOOM,),
    ("viking",): (_BLOOM, r"\p{N}"),
    ("gpt-4o", "llama4", "kanana2", "minimax-m2", "talkie"): (_camel(_DIGITS, f"{_CONTRACTION}?"),),
}
PRE_TOKENIZERS = {
    **{name: PreTokenizer(expressions) for names, expressions in _BY_EXPRESSIONS.items() for name in names},
    **dict.fromkeys(
        ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), _LLAMA3
    ),
    **dict.fromkeys(("glm4", "glm5"), PreTokenizer((_THREE_DIGITS,), ignore_merges=True)),
    "minicpm5": PreTokenizer((_DIGITS, _words(r"\p{N}+")), ignore_merges=True),
    "tekken": PreTokenizer((_camel(r"\p{N}"),), ignore_merges=True, add_bos=True),
}
