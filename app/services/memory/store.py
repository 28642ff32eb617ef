"""What the file of a conversation holds; it lies beside the session file and is as safe."""

import json
from dataclasses import asdict
from pathlib import Path

import msgspec
import structlog

from app.services import atomic
from app.services.generation import Message
from app.services.memory.conversation import Conversation, Turn
from app.services.session import Session

log = structlog.get_logger(__name__)

_VERSION = 1


class _StoredMessage(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    content: str


class _StoredConversation(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    session: dict[str, str]
    turns: list[list[_StoredMessage]]


def read(path: Path, session: Session) -> Conversation | None:
    """Read the conversation of a session; None where there is none, or, with a warning, where the file is not ours."""
    try:
        stored = msgspec.json.decode(atomic.regular(path).read_bytes(), type=_StoredConversation)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        log.warning("conversation file ignored", path=str(path), reason=str(error))
        return None
    if stored.version != _VERSION or stored.session != asdict(session):
        return None
    return Conversation([Turn([_message(message) for message in turn]) for turn in stored.turns])


def write(path: Path, session: Session, conversation: Conversation) -> None:
    """Save it for its owner alone: the whole of it or, with a warning, nothing."""
    turns = [[{"role": m.role, "content": m.content} for m in turn.messages] for turn in conversation.turns]
    content = json.dumps({"version": _VERSION, "session": asdict(session), "turns": turns}) + "\n"
    try:
        atomic.write(path, content)
    except (OSError, UnicodeError) as error:
        log.warning("conversation not saved", path=str(path), reason=str(error))


def _message(stored: _StoredMessage) -> Message:
    return Message("assistant" if stored.role == "assistant" else "user", stored.content)
