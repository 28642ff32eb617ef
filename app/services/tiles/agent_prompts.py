"""What Tiles' agent tells each model before anything else: its system prompt and its tools, as it last sent them.

They are thousands of tokens and the same in every conversation, so they can be computed before somebody asks.
"""

import asyncio
import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any

import msgspec
import structlog

from app.services import atomic
from app.services.generation import GenerationRequest, Message

_VERSION = 1
_MAX_FILES = 32  # of as many models
_MAX_BYTES = 2**22  # of a file
_NAME = re.compile(r"[0-9a-f]{32}\.json")

log = structlog.get_logger(__name__)


class _StoredPrompt(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    model: str
    system: list[str]
    tools: list[dict[str, Any]]
    template_kwargs: dict[str, Any]


class AgentPrompts:
    """One prompt for each model, in memory and in a private folder, from which a restart brings it back.

    On the event loop; files are read and written beside it.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder  # None: nothing of prompts may be on the disk
        self._prompts: dict[str, GenerationRequest] = {}  # by the model's id
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def note(self, model: str, request: GenerationRequest) -> None:
        """Keep what a request begins with, if that is another system prompt or other tools than before."""
        system = tuple(takewhile(lambda message: message.role == "system", request.messages))
        if not system or request.prompt is not None:
            return
        prompt = GenerationRequest(system, tools=request.tools, template_kwargs=request.template_kwargs)
        if self._prompts.get(model) == prompt:
            return
        self._prompts[model] = prompt
        if self._folder is not None:
            task = asyncio.create_task(self._write(self._folder, model))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def get(self, model: str) -> GenerationRequest | None:
        """Give what conversations with a model begin with, None where none was noted."""
        if model not in self._prompts and self._folder is not None:
            stored = await asyncio.to_thread(_read, self._folder / _file_name(model), model)
            if stored is not None:
                self._prompts.setdefault(model, stored)
        return self._prompts.get(model)

    async def _write(self, folder: Path, model: str) -> None:
        async with self._writing:
            await asyncio.to_thread(_write, folder, model, self._prompts[model])


def _file_name(model: str) -> str:
    return f"{hashlib.sha256(model.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.json"


def _write(folder: Path, model: str, prompt: GenerationRequest) -> None:
    """Save a prompt for its owner alone: the whole of it or, with a warning, nothing."""
    try:
        system = [message.content for message in prompt.messages]
        tools = [dict(tool) for tool in prompt.tools]
        stored = _StoredPrompt(_VERSION, model, system, tools, dict(prompt.template_kwargs))
        content = msgspec.json.encode(stored).decode()
        if len(content) <= _MAX_BYTES:
            atomic.write(folder / _file_name(model), content)
        atomic.tidy(folder, _NAME)
        _remove_oldest(folder)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        log.warning("agent prompt not saved", reason=type(error).__name__)


def _remove_oldest(folder: Path) -> None:
    files = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    for path in sorted(files, key=lambda path: path.stat().st_mtime)[: max(0, len(files) - _MAX_FILES)]:
        with suppress(OSError):
            path.unlink()


def _read(path: Path, model: str) -> GenerationRequest | None:
    try:
        stored = msgspec.json.decode(atomic.regular(path).read_bytes(), type=_StoredPrompt)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        log.warning("agent prompt ignored", path=str(path), reason=type(error).__name__)
        return None
    if (stored.version, stored.model) != (_VERSION, model):
        return None
    system = tuple(Message("system", text) for text in stored.system)
    tools: tuple[Mapping[str, Any], ...] = tuple(stored.tools)
    return GenerationRequest(system, tools=tools, template_kwargs=stored.template_kwargs)
