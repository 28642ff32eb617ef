"""The checks of the model by `tiles-server doctor`: its files, its chat template, its tokenizer."""

import atexit
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from app.commands import try_batching
from app.commands.checks import Check, CheckContext
from app.services import catalog
from app.services.errors import LoadFailed
from app.services.facts import Batching
from app.services.model_folder import ModelFolder

LARGEST = 4 * 2**30  # bytes of weights of a model that is loaded for its check
TRY_SECONDS = 120
SAMPLE = "Zoë says 你好 🙂"


def model_folder(context: CheckContext) -> Check:
    """Check that the model's files are complete."""
    if context.problem:
        return Check("Model", "failed", context.problem, "`tiles-server models` lists what can be loaded.")
    if (model := context.model) is None:
        return Check("Model", "warning", "none", "Use --model or --demo; `tiles-server pull ID` downloads one.")
    held = f"context {model.context.tokens:,} ({model.context.source})"
    detail = f"{model.id}: {model.model_type}, {model.precision}, {held}, {model.path}"
    return Check("Model", "ok", detail)


def draft_model(context: CheckContext) -> Check | None:
    """Check that the draft model's files are complete."""
    if (name := context.settings.draft_model) is None:
        return None
    try:
        draft = catalog.resolve(name)
    except LoadFailed as error:
        return Check("Draft model", "failed", error.message, "`tiles-server models` lists what can be loaded.")
    return Check("Draft model", "ok", f"{draft.id}: {draft.model_type}, {draft.precision}, {draft.path}")


def embedding_model(context: CheckContext) -> Check | None:
    """Check that the files of the embedding model are complete."""
    if (name := context.settings.embedding_model) is None:
        return None
    try:
        model = catalog.resolve(name)
    except LoadFailed as error:
        return Check("Embedding model", "failed", error.message, "`tiles-server models` lists what can be loaded.")
    return Check("Embedding model", "ok", f"{model.id}: {model.model_type}, {model.precision}, {model.path}")


def chat_template(context: CheckContext) -> Check | None:
    """Check that the chat template renders a conversation."""
    if context.model is None or context.model.is_encoder:
        return None
    try:
        folder = _settings_folder(context.model)
        source = _template(folder)
        if source is None:
            return Check(
                "Chat template", "warning", "none: the model may not be made for chat", "Use an instruct model."
            )
        rendered = _rendered(source, _special_tokens(folder))
    except Exception as error:
        return Check("Chat template", "failed", f"does not render: {error}", "Download the model again.")
    if SAMPLE not in rendered:
        return Check("Chat template", "warning", "leaves out the user's message", "Download the model again.")
    return Check("Chat template", "ok", f"renders a message as {len(rendered)} characters")


def tokenizer(context: CheckContext) -> Check | None:
    """Check that a text stays the same when it is encoded and decoded, by a model that writes."""
    if (
        context.model is None
        or context.model.is_encoder
        or not (path := _settings_folder(context.model) / "tokenizer.json").exists()
    ):
        return None
    from tokenizers import Tokenizer

    try:
        model_tokenizer = Tokenizer.from_file(str(path))
        ids = model_tokenizer.encode(SAMPLE, add_special_tokens=False).ids
        back = model_tokenizer.decode(ids)
    except Exception as error:
        return Check("Tokenizer", "failed", f"does not load: {error}", "Download the model again.")
    if back.strip() != SAMPLE:
        return Check(
            "Tokenizer", "warning", f"turns {SAMPLE!r} into {back!r}", "The model may read and write wrong characters."
        )
    return Check("Tokenizer", "ok", f"encodes and decodes {SAMPLE!r}, {len(ids)} tokens")


def batching(context: CheckContext) -> Check | None:
    """Load the model, if it is not large, and check that it answers, several at once in one batch."""
    if (model := context.model) is None or model.is_encoder:
        return None
    from app.services import free_memory  # takes psutil, which other commands need not wait for

    if model.weight_bytes > LARGEST or not free_memory.fits(model, "cpu"):
        return Check("Batches", "ok", "not tried, since the model is large: the log says so when it is loaded")
    try:  # in a process of its own, because a model may abort it
        process = subprocess.run(
            [sys.executable, "-m", try_batching.__name__, str(model.path), context.settings.blas],
            capture_output=True,
            text=True,
            timeout=TRY_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("Batches", "warning", f"cannot be tried: {error}")
    if process.returncode:
        problem = next(iter(reversed(process.stderr.splitlines())), f"exit code {process.returncode}")
        return Check("Batches", "failed", f"the model cannot be computed: {problem}", "Download the model again.")
    verdict = Batching(**json.loads(process.stdout.splitlines()[-1]))
    if verdict.decoding:
        detail = f"each answer has a batch of its own: together, {verdict.decoding}"
        return Check("Batches", "warning", detail, "Several answers at once take as long as one after the other.")
    if verdict.prefill:
        return Check("Batches", "ok", f"answers share a batch, short prompts do not: together, {verdict.prefill}")
    return Check("Batches", "ok", "answers that are made at once share a batch")


@cache
def _settings_folder(model: ModelFolder) -> Path:
    """Give a folder with the model's tokenizer and template: its own, or what a GGUF file becomes, until the end."""
    if not model.is_gguf:
        return model.path
    from app.services.gguf import architectures, conversion, file

    folder = Path(mkdtemp(prefix="tiles-server-doctor-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    source = file.read(model.path)
    conversion.write_settings(source, architectures.for_file(source), folder, {})
    return folder


def _template(folder: Path) -> str | None:
    """Give the source of a folder's chat template, from whichever file has it."""
    if (file := folder / "chat_template.jinja").exists():
        return file.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = _object(folder / name).get("chat_template")
        if isinstance(template, list):
            template = next((one["template"] for one in template if one.get("name") == "default"), None)
        if template:
            return str(template)
    return None


def _special_tokens(folder: Path) -> dict[str, str]:
    config = _object(folder / "tokenizer_config.json")
    tokens = {name: config.get(name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    return {name: str(token["content"] if isinstance(token, dict) else token or "") for name, token in tokens.items()}


def _object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes()) if path.exists() else {}
    return content if isinstance(content, dict) else {}


def _rendered(source: str, special_tokens: Mapping[str, str]) -> str:
    """Render a template as transformers does, in a sandbox."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    sandbox = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    sandbox.filters["tojson"] = _json
    sandbox.globals |= {"raise_exception": _refuse, "strftime_now": lambda _: "2026-01-01"}
    # A tag of transformers' own that marks the model's model_tokenizer and prints nothing.
    source = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", source)
    conversation = {"messages": [{"role": "user", "content": SAMPLE}], "add_generation_prompt": True}
    return sandbox.from_string(source).render(**conversation, tools=None, documents=None, **special_tokens)


def _json(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> str:
    raise ValueError(message)
