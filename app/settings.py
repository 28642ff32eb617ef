"""One frozen settings object; the only reader of flags and of the environment."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from app.origins import allowed_host, allowed_origin


class SettingError(ValueError):
    """A flag or a variable with a value that cannot be used; the message is one line."""


def _flag(value: str) -> bool:
    word = value.strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"", "0", "false", "no", "off"}:
        return False
    raise ValueError("give 1 or 0")


def _listed(parse: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    """Read a list with commas: from a variable, or from one flag of several."""

    def items(value: str) -> tuple[str, ...]:
        items = tuple(parse(item.strip()) for item in value.split(",") if item.strip())
        if not items:
            raise ValueError("give at least one, or leave it away")
        return items

    return items


def _key(value: str) -> str:
    if any(character < " " or character == "\x7f" for character in value):
        raise ValueError("give a key that fits into a header: no control characters")
    return value


def _path(value: str) -> Path:
    return Path(value).expanduser().absolute()


def _json_file(value: str) -> dict[str, Any]:
    try:
        content = json.loads(_path(value).read_bytes())
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise ValueError("give a file with a JSON object in it")
    return content


def _adapters(value: str) -> tuple[str, ...]:
    """Read folders with commas, or one whose own name has a comma."""
    text = value.strip()
    return (text,) if text and _adapter(text)[0].is_dir() else _listed(str)(text)


def _adapter(value: str) -> tuple[Path, float]:
    """Read a folder, or a folder and a scale behind a colon."""
    folder, _, scale = value.rpartition(":")
    try:
        return (_path(folder), float(scale)) if folder else (_path(value), 1.0)
    except ValueError:
        return _path(value), 1.0


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not low <= (number := int(value)) <= high:
            raise ValueError(f"give a number from {low} to {high}")
        return number

    return parse


def _seconds(value: str) -> float:
    if not 0 <= (number := float(value)) <= 86_400:
        raise ValueError("give seconds from 0 to 86400")
    return number


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in words:
            raise ValueError(f"give one of {', '.join(words)}")
        return value

    return parse


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _bytes(value: str) -> int:
    """Read 0, 512M, 4G or 8GiB."""
    text = value.strip().upper().removesuffix("B").removesuffix("I")
    number, unit = (text[:-1], text[-1]) if text[-1:] in "KMGT" and text else (text, "")
    if not 0 <= (size := float(number) * _UNITS[unit]) < 2**50:
        raise ValueError("give a size such as 512M or 4G")
    return int(size)


def _setting(
    default: Any,
    parse: Callable[[str], Any],
    meaning: str,
    *,
    name: str | None = None,  # of flag and variable, where it is not the field's own
    flag: bool | str = True,  # or its name, where it is not the variable's
    metavar: str | None = None,
) -> Any:
    facts = {"parse": parse, "meaning": meaning, "name": name, "flag": flag, "metavar": metavar}
    return field(default=default, metadata=facts)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a server is told. Flags win over the environment, the environment over the defaults."""

    model: str | None = _setting(None, str, "Model to serve: a folder or a repo id in a cache", metavar="ID_OR_PATH")
    demo: bool = _setting(False, _flag, "Serve the small demo model that comes with the server")
    models_dir: Path | None = _setting(
        None, _path, "Serve every model in this folder, each when it is asked for: router mode", metavar="DIR"
    )
    max_models: int = _setting(4, _whole(1, 64), "Models of --models-dir in memory at the same time", metavar="N")
    sleep_idle_seconds: float = _setting(
        0.0, _seconds, "Unload a model of --models-dir that nobody has used for so long; 0 is never", metavar="SECONDS"
    )
    host: str = _setting("127.0.0.1", str, "Address to listen on; beyond loopback needs --api-key or --insecure")
    port: int = _setting(6969, _whole(0, 65535), "Port to listen on; 0 takes a free one")
    api_key: tuple[str, ...] = _setting(
        (), _listed(_key), "Key that requests must carry; several with commas", metavar="KEY"
    )
    insecure: bool = _setting(False, _flag, "Listen beyond loopback without a key, in so many words")
    allow_host: tuple[str, ...] = _setting(
        (), _listed(allowed_host), "Host names to answer to besides loopback; several with commas", metavar="NAME"
    )
    allow_origin: tuple[str, ...] = _setting(
        (),
        _listed(allowed_origin),
        "Web origins to answer besides loopback, with commas; * for a part of the host, as in https://*.app.example",
        metavar="ORIGIN",
    )
    context_length: int | None = _setting(
        None, _whole(16, 2**20), "Cap of the context, in tokens; the model's own when absent", metavar="TOKENS"
    )
    max_batch: int = _setting(32, _whole(1, 256), "Answers that are made at the same time", metavar="ROWS")
    max_queue: int = _setting(256, _whole(1, 65536), "Requests that may wait; one more gets a 503", metavar="N")
    lora: tuple[str, ...] = _setting(
        (),
        _adapters,
        "LoRA adapter of mlx-lm to lay over the model; with :0.5 at half its strength; several with commas",
        metavar="DIR[:SCALE]",
    )
    max_memory: int | None = _setting(
        None, _bytes, "Memory for models, prompts and answers together; what is free when absent", metavar="SIZE"
    )
    cache_ram: int | None = _setting(
        None, _bytes, "Memory for prompts kept between requests; a quarter of what is free when absent", metavar="SIZE"
    )
    cache_disk: int = _setting(4 * 2**30, _bytes, "Disk for prompts kept over a restart; 0 keeps none", metavar="SIZE")
    prompt_lookup: int = _setting(
        0,
        _whole(0, 64),
        "Tokens that a lone answer may copy from its prompt at a time; 0 guesses none",
        metavar="TOKENS",
    )
    draft_model: str | None = _setting(
        None, str, "Small model of the same vocabulary that guesses for a lone answer", metavar="ID_OR_PATH"
    )
    draft_tokens: int = _setting(4, _whole(1, 64), "Tokens that --draft-model guesses at a time", metavar="TOKENS")
    stop_repetition: str = _setting("on", _one_of("on", "off"), "End answers that only repeat themselves")
    sse_ping_interval: float = _setting(
        15.0, _seconds, "Seconds of silence after which a stream gets a comment line", metavar="SECONDS"
    )
    max_body: int = _setting(100 * 2**20, _bytes, "Largest request body", metavar="SIZE")
    max_values: int = _setting(
        500_000,
        _whole(1000, 2**30),
        "Most values in a request body: texts, numbers, names, objects and lists",
        metavar="N",
    )
    max_nesting: int = _setting(64, _whole(4, 512), "Deepest nesting of a request body", metavar="LEVELS")
    max_messages: int = _setting(4096, _whole(1, 2**20), "Most messages in one conversation", metavar="N")
    max_stop_strings: int = _setting(256, _whole(1, 65536), "Most stop strings in one request", metavar="N")
    max_stop_length: int = _setting(4096, _whole(1, 2**20), "Longest stop string, in bytes", metavar="BYTES")
    max_choices: int = _setting(
        64, _whole(1, 4096), "Most answers to one request for completions: prompts times n", metavar="N"
    )
    watchdog_seconds: float = _setting(
        60.0, _seconds, "After how long a step that does not return means a restart; 0 is never", metavar="SECONDS"
    )
    shutdown_seconds: float = _setting(
        5.0, _seconds, "How long running answers may go on after Ctrl-C or SIGTERM", metavar="SECONDS"
    )
    store: str = _setting("on", _one_of("on", "off"), "Keep responses that ask to be kept, for previous_response_id")
    store_days: int = _setting(30, _whole(1, 3650), "How long a response is kept", metavar="DAYS")
    store_size: int = _setting(2**30, _bytes, "Room for kept responses; the oldest go first", metavar="SIZE")
    ui_settings: dict[str, Any] | None = _setting(
        None, _json_file, "JSON file of defaults for llama.cpp's Web UI, by the names of its settings", metavar="FILE"
    )
    log_format: str | None = _setting(
        None, _one_of("console", "json"), "Log lines for people or for programs; by terminal when absent"
    )
    webui_dir: Path | None = _setting(
        None, _path, "Built Web UI to serve at /; webui in the data folder when absent", flag="webui", metavar="DIR"
    )
    open_browser: bool = _setting(False, _flag, "Open a browser once the server listens", name="open")
    data_dir: Path = _setting(Path("~/.tiles/server"), _path, "Folder of what the server keeps", metavar="DIR")
    session_file: Path = _setting(
        Path("~/.tiles/server_session.json"), _path, "Where the session is kept", flag=False, metavar="FILE"
    )
    keep_conversation: bool = _setting(
        False, _flag, "Keep the conversation of memory mode over a restart, in a file beside the session file"
    )
    skip_session_persist: bool = _setting(False, _flag, "Neither read nor write the session file", flag=False)
    bootstrap_model: str | None = _setting(None, str, "Model to load when there is no session", flag=False)
    bootstrap_model_cache_path: str | None = _setting(None, str, "Folder of that model", flag=False)
    bootstrap_memory_path: str | None = _setting(None, str, "Memory folder of that session", flag=False)
    bootstrap_system_prompt: str | None = _setting(None, str, "System prompt of that session", flag=False)
    model_cache_path: str | None = _setting(None, str, "Folder for POST /models/load", flag=False)

    @property
    def adapters(self) -> tuple[tuple[Path, float], ...]:
        """The folders of --lora with their scales."""
        return tuple(_adapter(text) for text in self.lora)

    def __post_init__(self) -> None:
        """Expand the folders, so that every reader sees the same path."""
        for name in ("data_dir", "session_file"):
            object.__setattr__(self, name, getattr(self, name).expanduser())

    @property
    def ui_folder(self) -> Path:
        """Where the Web UI is, if there is one."""
        return self.webui_dir or self.data_dir / "webui"


def variable(setting: "Field[Any]") -> str:
    """Name of the environment variable of a setting."""
    return f"TILES_{_name(setting).upper()}"


def flag(setting: "Field[Any]") -> str | None:
    """Name of the flag of a setting, None for one that only the environment sets."""
    match setting.metadata["flag"]:
        case False:
            return None
        case str(name):
            return f"--{name}"
    return f"--{_name(setting).replace('_', '-')}"


def described() -> list["Field[Any]"]:
    """Every setting with its description, in the order of the docs."""
    return [item for item in fields(Settings) if item.default is not MISSING]


def read(flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from flags (by setting name, None for absent), then from the environment.

    Raises SettingError for a value that cannot be used.
    """
    environ = os.environ if environ is None else environ
    given = {name: value for name, value in (flags or {}).items() if value is not None and value != ()}
    for setting in described():
        if setting.name in given:
            given[setting.name] = _parsed(setting, given[setting.name], flag(setting) or setting.name)
        elif (text := environ.get(variable(setting))) not in (None, ""):
            given[setting.name] = _parsed(setting, text, variable(setting))
    return Settings(**given)


def _parsed(setting: "Field[Any]", value: Any, source: str) -> Any:
    if isinstance(value, tuple):  # a flag that came several times
        return tuple(item for text in value for item in _parsed(setting, text, source))
    if not isinstance(value, str):
        return value
    try:
        return setting.metadata["parse"](value)
    except (ValueError, KeyError) as error:
        why = str(error) if str(error).startswith("give ") else "that is not a value for it"
        shown = "" if setting.name == "api_key" else f" {value!r}:"
        raise SettingError(f"{source}:{shown} {why}") from None


def _name(setting: "Field[Any]") -> str:
    return str(setting.metadata["name"] or setting.name)
