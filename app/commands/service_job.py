"""What a service runs: the server, with the flags and variables that are in force where it is installed."""

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass
from pathlib import Path
from typing import Any

from app.commands.program import program
from app.services import atomic
from app.services.supervisors import Job
from app.settings import SettingError, Settings, described, flag, is_list, read_with_sources, variable

# Where models are and where they come from. HF_TOKEN is none of them: others may read the file of a service.
_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "XDG_CACHE_HOME", "SSL_CERT_FILE")
_MODELS = ("model", "draft_model", "embedding_model")  # a folder, or an id
_CLOSING_SECONDS = 35.0  # beyond --shutdown-seconds: serve takes 30 at most


@dataclass(frozen=True, slots=True)
class Plan:
    """A job, the settings that it will have, and the API keys that it reads from a file of its own."""

    job: Job
    settings: Settings
    keys: tuple[str, ...] = ()

    def write_keys(self) -> None:
        """Write the keys, for their owner alone. Raises OSError."""
        if self.keys:
            atomic.write(_keys_path(self.settings.data_dir), "".join(f"{key}\n" for key in self.keys))
        atomic.private_folder(log_path(self.settings.data_dir).parent)


def plan(flags: Mapping[str, Any], environ: Mapping[str, str]) -> Plan:
    """Give what a service with these flags and variables runs.

    Raises SettingError for settings that cannot be used, or not by a service.
    """
    settings, sources = read_with_sources(flags, environ)
    settings.check()
    if settings.fd:
        raise SettingError("--fd: a service gets its sockets from its supervisor: docs/service.md")
    # From a flag or a variable, which all could read in the file of the service.
    has_own_keys = bool(flags.get("api_key") or environ.get("TILES_API_KEY"))
    words = ["--api-key-file", str(_keys_path(settings.data_dir))] if has_own_keys else []
    for setting in described():
        if setting.name != "api_key" and (setting.name != "api_key_file" or not has_own_keys):
            words += _words(setting, settings, flags, environ, sources.get(setting.name))
    job = Job(
        arguments=(*program(), "serve", *words),
        environment=dict(_environment(environ)),
        log_path=log_path(settings.data_dir),
        stop_seconds=settings.shutdown_seconds + _CLOSING_SECONDS,
    )
    return Plan(job, settings, settings.api_key if has_own_keys else ())


def log_path(data_dir: Path) -> Path:
    """Give where the log is, if the supervisor keeps none."""
    return data_dir / "service" / "server.log"


def remove_keys(data_dir: Path) -> None:
    """Remove the file of keys. Raises OSError."""
    _keys_path(data_dir).unlink(missing_ok=True)


def _keys_path(data_dir: Path) -> Path:
    return data_dir / "service" / "api-keys"


def _words(
    setting: "Field[Any]", settings: Settings, flags: Mapping[str, Any], environ: Mapping[str, str], source: str | None
) -> list[str]:
    """Spell a setting as a flag, if a flag or a variable has set it."""
    name = flag(setting)
    if name is None or source not in {name, variable(setting)}:
        return []
    if setting.default is False:
        return [name] if getattr(settings, setting.name) else []
    if is_list(setting):
        texts = getattr(settings, setting.name)
    else:
        texts = (str(flags[setting.name] if source == name else environ[variable(setting)]),)
    is_path = isinstance(getattr(settings, setting.name), Path) or setting.name in {"lora", "ui_settings"}
    return [word for text in texts for word in (name, _absolute(text) if is_path else _model(setting.name, text))]


def _absolute(text: str) -> str:
    """Give a path as it is from any folder: a service does not start in this one."""
    return str(Path(text).expanduser().absolute())


def _model(name: str, text: str) -> str:
    """Give the folder of a model like other paths; its id is none, unless a folder has that name."""
    return _absolute(text) if name in _MODELS and Path(text).expanduser().exists() else text


def _environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    names = [variable(setting) for setting in described() if flag(setting) is None]
    return ((name, environ[name]) for name in (*names, *_VARIABLES) if environ.get(name))
