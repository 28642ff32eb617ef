"""What a coding agent is started against: as the command line says it, and as it turns out."""

from dataclasses import dataclass
from typing import Any

from app.services.coding_agents import ServerFacts
from app.settings import SettingError


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line says of the server."""

    url: str | None = None
    api_key: str | None = None
    model: str | None = None
    demo: bool = False
    models_dir: str | None = None
    context_length: str | None = None
    keep_server: bool = False

    def settings(self) -> dict[str, Any]:
        """Give what of it are settings. Raises SettingError if it contradicts itself."""
        serving = {"demo": self.demo or None, "models_dir": self.models_dir, "context_length": self.context_length}
        if self.url and any(serving.values()):
            raise SettingError("--url names a server that runs: --demo, --models-dir and --context-length start one")
        return {**serving, "api_key": self.api_key, "model": None if self.url or self.models_dir else self.model}

    def flags(self) -> list[str]:
        """Give the flags of a server that is started."""
        flags = ["--demo"] if self.demo else []
        valued = {"--model": None if self.models_dir else self.model, "--models-dir": self.models_dir}
        valued["--context-length"] = self.context_length
        return flags + [word for flag, value in valued.items() if value for word in (flag, value)]


@dataclass(frozen=True, slots=True)
class LaunchServer:
    """A server, and whether it was started for this, or would be."""

    facts: ServerFacts
    is_own: bool = False
    flags: tuple[str, ...] = ()
    stays: bool = False  # whether it runs on when the agent ends
    assumed: bool = False  # whether nothing said which model it is
