"""Structured logs, set up once: console on a terminal, JSON otherwise. Never prompts, answers or keys."""

import json
import logging
import sys
import textwrap
from io import StringIO
from typing import Any, TextIO, cast

from app.standard_error import StandardError

# structlog takes rich where it is there, for tracebacks that are plain here; that is half of what its import costs.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
import structlog  # noqa: E402

if sys.modules["rich"] is None:
    del sys.modules["rich"]


def set_up(form: str | None = None, *, level: int = logging.INFO) -> None:
    """Send every log line, uvicorn's and the libraries' too, to standard error in one form."""
    form = form or ("console" if sys.stderr.isatty() else "json")
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=form == "json"),
    ]
    renderer: list[Any] = (
        [_escape, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_traceback)]
        if form == "console"
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
    )
    stream = cast("TextIO", StandardError())
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    chain = [_drop_record, *renderer]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=chain, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def printable(text: str, *, besides: str = "") -> str:
    """Escape control, bidi and zero-width characters, which a terminal would obey or not show."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in besides else character.encode("unicode_escape").decode()
        for character in text
    )


def _escape(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Escape control characters, so that no client can write to the terminal that shows the log."""
    return {key: printable(value.rstrip()) if isinstance(value, str) else value for key, value in event.items()}


def _traceback(stream: TextIO, error: structlog.typing.ExcInfo) -> None:
    """Write an indented traceback; structlog's own shows variables, and so prompts and answers."""
    text = StringIO()
    structlog.dev.plain_traceback(text, error)
    stream.write(textwrap.indent(printable(text.getvalue(), besides="\n"), "  "))


def _json(event: Any, **options: Any) -> str:
    return json.dumps(event, **options).replace("\x7f", "\\u007f")  # the one control character that JSON may hold


def _drop_record(logger: Any, name: str, event: Any) -> Any:
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(logger, name, event)
