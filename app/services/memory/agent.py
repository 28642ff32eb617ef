"""The memory agent: one conversation a session, whose model works on its notes between the answers."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from app.services import memory_path
from app.services.errors import AppError, InvalidRequest, NoMemoryFolder, PromptTooLong
from app.services.generation import Event, Finished, Generation, GenerationRequest, Text
from app.services.memory import paths, store
from app.services.memory.audit import Audit
from app.services.memory.conversation import Conversation
from app.services.memory.notes import FUNCTIONS, Notes
from app.services.memory.outcome import Outcome
from app.services.memory.request import MemoryRequest
from app.services.memory.sandbox import Sandbox
from app.services.model_service import ModelService
from app.services.session import Session, conversation_file
from app.settings import Settings

log = structlog.get_logger()


class MemoryAgent:
    """A singleton of the application. Its methods are for the event loop."""

    def __init__(self, service: ModelService, settings: Settings, *, sandbox: Sandbox | None = None) -> None:
        self._service = service
        self._settings = settings
        self._sandbox = sandbox or Sandbox(FUNCTIONS)
        self._files = ThreadPoolExecutor(1, thread_name_prefix="memory")
        self._one_at_a_time = asyncio.Lock()
        self._session: Session | None = None
        self._conversation = Conversation()
        self._keeps = settings.keep_conversation and not settings.skip_session_persist

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """End the sandbox's processes when the server ends."""
        try:
            yield
        finally:
            await self._sandbox.close()
            self._files.shutdown(wait=False)

    async def answer(self, request: MemoryRequest) -> Generation:
        """Begin an answer; another request waits until it is over. Raises AppError for what is refused."""
        self._service.models.expect()
        await self._one_at_a_time.acquire()
        try:
            return await self._begin(request)
        except BaseException:
            self._one_at_a_time.release()
            raise

    async def _begin(self, request: MemoryRequest) -> Generation:
        session = self._service.models.session
        if session is None or not session.memory_path:
            raise NoMemoryFolder
        folder = await asyncio.to_thread(
            memory_path.prepare, session.memory_path, self._settings.data_dir, self._settings.session_file
        )
        draft = (await self._load_conversation(session)).copy()
        if request.code.strip():
            draft.result((await self._run(folder, request.code)).message())
        if request.begins:
            draft.begin(request.reply, request.message)
        elif not draft.turns:
            raise InvalidRequest("A relay brings the code of the last answer", param="python_code")
        elif not request.code.strip():  # the last answer had neither a reply nor code
            draft.result(Outcome().message())
        generation = await self._service.generate(await self._fit(draft, request.generation))
        return _RecordedGeneration(generation, lambda text: self._settle(session, draft, text))

    async def _load_conversation(self, session: Session) -> Conversation:
        """Give the conversation of a session: a new one for one that just began."""
        if session is not self._session:
            saved = await asyncio.to_thread(store.read, self._file, session) if self._keeps else None
            self._session, self._conversation = session, saved or Conversation()
        return self._conversation

    async def _run(self, folder: Path, code: str) -> Outcome:
        audit, began = Audit(), time.perf_counter()
        root = paths.open_root(folder)
        try:
            notes = Notes(root, audit)

            async def call(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> object:
                return await self._in_order(notes.call, name, args, kwargs)

            outcome = await self._sandbox.run(code, call)
        finally:
            with suppress(RuntimeError):  # the server has ended meanwhile, and the folder is closed with it
                self._files.submit(notes.close)  # after a call that may still be at work there
        milliseconds = round((time.perf_counter() - began) * 1000, 1)
        log.info("memory run", outcome=_kind(outcome), ms=milliseconds, code_bytes=len(code), **audit.log_fields())
        return outcome

    async def _in_order(self, work: Any, *args: Any) -> Any:
        """Do file work off the event loop, one piece after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._files, work, *args)

    async def _fit(self, draft: Conversation, generation: GenerationRequest) -> GenerationRequest:
        """Make the conversation fit, with room for an answer. Raises PromptTooLong when that cannot be."""
        steps: dict[str, int] = {}
        while True:
            fitting = replace(generation, messages=draft.messages(), model=None)  # the session's own
            async with self._service.models.using(fitting.model) as model:
                tokens, context = await model.measure(fitting)
            answer_tokens = min(generation.max_tokens or context.tokens, context.tokens // 4)
            if tokens + answer_tokens <= context.tokens:
                break
            if (step := draft.shorten()) is None:
                if tokens < context.tokens:
                    break
                raise PromptTooLong(tokens, context.tokens, can_grow=context.can_grow)
            steps[step] = steps.get(step, 0) + 1
        if steps:
            log.info("memory conversation shortened", context=context.tokens, tokens=tokens, **_with_log_names(steps))
        return fitting

    async def _settle(self, session: Session, draft: Conversation, text: str) -> None:
        """An answer is over: keep it, then let the next request in. Where nothing was said, nothing has happened."""
        try:
            if text and session is self._session:
                draft.answer(text)
                self._conversation = draft
                if self._keeps and session is self._service.models.session:
                    await asyncio.to_thread(store.write, self._file, session, draft)
        finally:
            self._one_at_a_time.release()

    @property
    def _file(self) -> Path:
        return conversation_file(self._settings.session_file)


class _RecordedGeneration:
    """A generation whose text is kept when it is over, however it ends."""

    def __init__(self, inner: Generation, on_end: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        self._inner = inner
        self._on_end = on_end
        self._text: list[str] = []
        self._saving: asyncio.Task[None] | None = None

    @property
    def choices(self) -> int:
        """One answer."""
        return self._inner.choices

    async def ready(self) -> Sequence[Event]:
        """Pass events on; the last one once the text is kept."""
        try:
            events = await self._inner.ready()
        except AppError:
            await asyncio.shield(self._end())
            raise
        self._text += [event.text for event in events if isinstance(event, Text)]
        if events and isinstance(events[-1], Finished):
            await asyncio.shield(self._end())
        return events

    def wake(self) -> None:
        """Pass it on."""
        self._inner.wake()

    def cancel(self) -> None:
        """Stop, and keep what was said so far."""
        self._inner.cancel()
        self._end()

    def end_reasoning(self) -> bool:
        """Pass it on."""
        return self._inner.end_reasoning()

    def note_readers(self, count: int) -> None:
        """Pass it on."""
        self._inner.note_readers(count)

    def _end(self) -> "asyncio.Task[None]":
        if self._saving is None:
            self._saving = asyncio.ensure_future(self._on_end("".join(self._text)))
        return self._saving


def _kind(outcome: Outcome) -> str:
    """Give the kind of an error, and none of its words: they may be those of a note."""
    return "ok" if outcome.error is None else outcome.error.partition(":")[0][:64]


def _with_log_names(steps: Mapping[str, int]) -> dict[str, int]:
    return {f"{step.replace(' ', 's_')}": count for step, count in steps.items()}
