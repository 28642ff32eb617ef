"""Structured logs, set up once: console on a terminal, JSON otherwise. Never prompts, answers or keys."""

import json
import logging
import sys
import textwrap
from io import StringIO
from typing import Any, Literal, TextIO, cast

import structlog

from app.standard_error import StandardError

Format = Literal["console", "json"]


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
    place = cast("TextIO", StandardError())
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(place),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(place)
    chain = [_drop_record, *renderer]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=chain, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def printable(text: str, *, besides: str = "") -> str:
    """Escape what a terminal would obey, or show as if it were not there: control, bidi and zero-width characters."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in besides else character.encode("unicode_escape").decode()
        for character in text
    )


def _escape(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Let no client write to the terminal that shows the log; values that are no strings are shown by their repr."""
    return {key: printable(value.rstrip()) if isinstance(value, str) else value for key, value in event.items()}


def _traceback(place: TextIO, error: structlog.typing.ExcInfo) -> None:
    """Write a traceback, further in than a line of the log; structlog's own show variables, and so what was said."""
    text = StringIO()
    structlog.dev.plain_traceback(text, error)
    place.write(textwrap.indent(printable(text.getvalue(), besides="\n"), "  "))


def _json(event: Any, **options: Any) -> str:
    return json.dumps(event, **options).replace("\x7f", "\\u007f")  # the one control character that JSON may hold


def _drop_record(logger: Any, name: str, event: Any) -> Any:
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(logger, name, event)
