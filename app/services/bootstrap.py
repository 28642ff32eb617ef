"""What to load at start: the flags, else the session file, else the bootstrap variables."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from app.services import catalog, session
from app.services.model_folder import ModelFolder
from app.services.session import Session
from app.settings import Settings

DEMO = "tiles-nano"
DEMO_FOLDER = Path(__file__).parents[1] / "tiles_nano"
DEFAULT_SYSTEM_PROMPT = "You are a helpful assistant."

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A session to try, where it comes from, and whether it is to be saved once its model is loaded."""

    source: Literal["flag", "demo", "session", "bootstrap"]
    session: Session
    persist: bool = False


def candidates(settings: Settings) -> list[Candidate]:
    """Give what to try at start, in order; none when nobody said what to serve."""
    if settings.model:
        return [Candidate("flag", Session(settings.presets.model(settings.model) or settings.model))]
    if settings.demo:
        return [Candidate("demo", Session(DEMO))]
    sessions = (_from_session_file(settings), _from_variables(settings))
    return [candidate for candidate in sessions if candidate]


def locate(candidate: Candidate) -> ModelFolder:
    """Find and check the folder of a candidate. Raises LoadFailed."""
    if candidate.source == "demo":
        return catalog.inspect(DEMO_FOLDER, DEMO)
    return catalog.resolve(candidate.session.model, candidate.session.model_cache_path)


def _from_session_file(settings: Settings) -> Candidate | None:
    if settings.skip_session_persist:
        return None
    saved = session.read(settings.session_file)
    return Candidate("session", saved) if saved else None


def _from_variables(settings: Settings) -> Candidate | None:
    model, path = settings.bootstrap_model, settings.bootstrap_model_cache_path
    if not model or not path:
        _warn_of_half(model, path)
        return None
    session = Session(
        model=model,
        model_cache_path=path,
        memory_path=settings.bootstrap_memory_path or "",
        system_prompt=settings.bootstrap_system_prompt or DEFAULT_SYSTEM_PROMPT,
    )
    return Candidate("bootstrap", session, persist=not settings.skip_session_persist)


def _warn_of_half(model: str | None, path: str | None) -> None:
    if model or path:
        missing = "TILES_BOOTSTRAP_MODEL_CACHE_PATH" if model else "TILES_BOOTSTRAP_MODEL"
        log.warning("bootstrap variables ignored", reason=f"{missing} is not set, and both are needed")
