"""Structured logs, set up once: console on a terminal, JSON otherwise. Never prompts, answers or keys."""

import logging
import sys
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
        # The default traceback shows local variables, and with them what was said.
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if form == "console"
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
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


def _drop_record(logger: Any, name: str, event: Any) -> Any:
    return structlog.stdlib.ProcessorFormatter.remove_processors_meta(logger, name, event)
