"""What a coding agent is started with: variables, arguments and files."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

KEY_VARIABLE = "TILES_AGENT_KEY"  # profiles name it in their files, so that no file holds the key
NO_KEY = "none"  # for a server that wants none; agents refuse to start without any
_LONGEST_ANSWER = 32_000  # tokens that an agent keeps free for an answer, at most


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What an agent has to know of a server and the model that answers."""

    url: str  # without a path, as in http://127.0.0.1:6969
    model: str
    context: int  # tokens
    reasoning: bool = False  # whether the model thinks before it answers
    api_key: str | None = None
    sees: bool = False  # whether the model takes images

    @property
    def base_url(self) -> str:
        """Where OpenAI's routes begin."""
        return f"{self.url}/v1"

    @property
    def output(self) -> int:
        """Tokens of the context that an agent keeps free for an answer."""
        return min(self.context // 4, _LONGEST_ANSWER)

    @property
    def key(self) -> str:
        """The key that an agent sends, also where the server wants none."""
        return self.api_key or NO_KEY


@dataclass(frozen=True, slots=True)
class JsonFile:
    """A file of a profile, in which the agent may keep settings of its user too."""

    settings: Mapping[str, Any]  # these hold at each start
    defaults: Mapping[str, Any] = field(default_factory=dict)  # these hold until the user changes them


@dataclass(frozen=True, slots=True)
class Profile:
    """What a start of an agent needs."""

    env: Mapping[str, str | None] = field(default_factory=dict)  # None takes the user's own away
    arguments: tuple[str, ...] = ()  # before those of the user
    files: Mapping[str, JsonFile] = field(default_factory=dict)  # by their path in the profile's folder


@dataclass(frozen=True, slots=True)
class Agent:
    """A coding agent that can be started."""

    name: str
    title: str
    command: str
    install: str  # the command that installs it
    least_context: int  # tokens that its instructions and a first turn take
    make: Callable[[ServerFacts, Path], Profile]  # from the server and the folder of the profile
    quiet: Mapping[str, str] = field(default_factory=dict)  # turns telemetry off, unless the user has set it
    paths: tuple[str, ...] = ()  # where its installer puts it, beside the PATH

    def profile(self, server: ServerFacts, folder: Path, environ: Mapping[str, str]) -> Profile:
        """Give what it is started with; `folder` is its own, and nothing else is written."""
        made = self.make(server, folder)
        quiet = {name: value for name, value in self.quiet.items() if name not in environ}
        return replace(made, env={**quiet, **made.env})

    def find(self, environ: Mapping[str, str]) -> str | None:
        """Give the path of its program, None where it is not installed."""
        if (program := shutil.which(self.command, path=environ.get("PATH", ""))) is not None:
            return program
        home = Path(environ.get("HOME") or Path.home())
        return next((program for path in self.paths if (program := shutil.which(home / path)) is not None), None)
