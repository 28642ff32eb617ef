"""The session file: what the server was last told to serve, kept so that a restart brings it back."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import msgspec
import structlog

from app.services import atomic

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Session:
    """A model, where it lies, and the memory and the system prompt that go with it; each may be empty but the model."""

    model: str
    model_cache_path: str = ""
    memory_path: str = ""
    system_prompt: str = ""


FIELDS = {field.name for field in fields(Session)}


def read(path: Path) -> Session | None:
    """Read the session; None where there is none, and with a warning where the file is torn or another's."""
    try:
        return parse(atomic.regular(path).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        log.warning("session file ignored", path=str(path), reason=str(error))
        return None


def parse(content: bytes) -> Session:
    """Read the content of a session file. Raises ValueError unless it is an object of exactly the four strings."""
    strings = msgspec.json.decode(content, type=dict[str, str])
    if strings.keys() != FIELDS:
        raise ValueError(f"it must have exactly the fields {', '.join(sorted(FIELDS))}")
    return Session(**strings)


def write(path: Path, session: Session) -> bool:
    """Save the session for its owner alone: the whole of it or, with a warning and False, nothing."""
    try:
        atomic.write(path, json.dumps(asdict(session), indent=2) + "\n")
    except OSError as error:
        log.warning("session not saved", path=str(path), reason=str(error))
        return False
    return True


def conversation_file(session_file: Path) -> Path:
    """Name the file of the memory agent's conversation, which begins and ends with the session."""
    return session_file.with_name(f"{session_file.stem}.conversation.json")


def forget_conversation(session_file: Path) -> None:
    """Remove that file: a new session begins."""
    path = conversation_file(session_file)
    atomic.remove(path)
    if path.exists():
        log.warning("conversation not removed", path=str(path))
