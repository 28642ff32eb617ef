"""What is not right and not the project's to mend: which checks, and why. One that is no longer needed fails."""

from typing import NamedTuple


class Excuse(NamedTuple):
    """Checks of a model, and why they may fail."""

    checks: frozenset[str]
    reason: str


def _excuse(reason: str, *checks: str) -> Excuse:
    return Excuse(frozenset(checks), reason)


EXCUSES: dict[str, Excuse] = {
    "phi3small": _excuse("mlx-lm alone crashes with it", "load"),
    "bitnet": _excuse("mlx-lm computes it with a kernel for Metal, which is not on Linux", "load"),
    "muse_spark": _excuse("mlx-lm computes it with a kernel for Metal, which is not on Linux", "load"),
    "gear": _excuse("transformers refuses its layer_types, for mlx-lm alone as well", "load"),
    "plamo3": _excuse(
        "mlx-lm's answer depends on the pieces in which it computes a prompt",
        *(
            "alone",
            "short_prompts",
            "mixed_prompts",
            "windows",
            "joining",
            "second_turn",
            "branch",
            "chat",
            "json_schema",
            "cancel",
            "disk",
        ),
    ),
    "fireworks-ai-llama-3-firefunction-v2.jinja": _excuse(
        "the template wants variables that no API has: `functions`, `datetime`",
        *("conversations", "conversations with tools", "continued answer", "tools", "reasoning beside calls"),
        "grammar of calls",
    ),
    "llama-cpp-deepseek-r1.jinja": _excuse(
        "written for llama.cpp's own engine: jinja2 cannot render its tools",
        *("conversations with tools", "tools", "reasoning beside calls"),
    ),
    "mistralai-Mistral-Nemo-Instruct-2407.jinja": _excuse(
        "the template moves the system message to the last user message, which would make each prompt a new one",
        *("conversations", "conversations with tools"),
    ),
    "openai-gpt-oss-120b.jinja": _excuse(
        "the template leaves out what was said beside a call once an answer followed",
        *("conversations", "conversations with tools"),
    ),
}
