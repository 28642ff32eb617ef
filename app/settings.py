"""One frozen settings object; the only reader of flags and of the environment."""

import json
import os
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from app import config_file
from app.addresses import is_local, listen_address
from app.config_file import ConfigError
from app.origins import allowed_host, allowed_origin
from app.services import hostfile as hostfiles
from app.services.facts import KVBits
from app.services.hostfile import Hostfile, Sharding
from app.services.mcp import config as mcp_config
from app.services.mcp.config import McpConfig
from app.services.models_folder import is_model
from app.services.presets import Preset, Presets
from app.services.tiles import config as tiles_config
from app.services.tiles import installation
from app.services.tiles.daemon import URL as DAEMON_URL
from app.services.tiles.daemon import Daemon, daemon_url
from app.services.ui.folder import is_built


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
    """Read a list with commas, from a variable or from a flag, which may come several times."""

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


LAUNCHD = "launchd:"


def _descriptor(value: str) -> str:
    is_name = value.startswith(LAUNCHD) and value != LAUNCHD
    if not is_name and not (value.isascii() and value.isdecimal() and int(value) < 2**16):
        raise ValueError(f"give the number of an open file, or {LAUNCHD}NAME")
    return value


def _endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("give an address: http://localhost:4318/v1/traces")
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


def _auto_or(parse: Callable[[str], int]) -> Callable[[str], int | None]:
    return lambda value: None if value == "auto" else parse(value)


_CACHE_TYPES = {"8": 8, "4": 4, "q8_0": 8, "q4_0": 4}  # the last two are llama-server's names


def _kv_bits(value: str) -> KVBits:
    bits = [_CACHE_TYPES.get(word.strip().lower(), 0) for word in value.split(",")]
    if len(bits) > 2 or not all(bits):
        raise ValueError("give 8 or 4, or one for keys and one for values, as in 8,4")
    return KVBits(bits[0], bits[-1])


def _seconds(value: str) -> float:
    if not 0 <= (number := float(value)) <= 86_400:
        raise ValueError("give seconds from 0 to 86400")
    return number


def _silence(value: str) -> float:
    if not 2 <= (number := float(value)) <= 3600:
        raise ValueError("give seconds from 2 to 3600")
    return number


def _layers(value: str) -> tuple[int, ...]:
    try:
        layers = tuple(int(number) for number in value.split(","))
    except ValueError:
        layers = ()
    if not layers or min(layers) < 1:
        raise ValueError("give the layers of each machine, as in 40,24")
    return layers


def _sharding(value: str) -> Sharding:
    match value:
        case "auto" | "tensor" | "pipeline":
            return value
    raise ValueError("give one of auto, tensor, pipeline")


def _temperature(value: str) -> float:
    if not 0.01 <= (number := float(value)) <= 100:
        raise ValueError("give a number from 0.01 to 100")
    return number


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in words:
            raise ValueError(f"give one of {', '.join(words)}")
        return value

    return parse


def _switch(value: str) -> bool:
    return _one_of("on", "off")(value) == "on"


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def _bytes(value: str) -> int:
    """Read 0, 512M, 4G or 8GiB."""
    text = value.strip().upper().removesuffix("B").removesuffix("I")
    number, unit = (text[:-1], text[-1]) if text[-1:] in "KMGT" and text else (text, "")
    if not 0 <= (size := float(number) * _UNITS[unit]) < 2**50:
        raise ValueError("give a size such as 512M or 4G")
    return int(size)


T = TypeVar("T")


def _setting(
    default: T,
    parse: Callable[[str], T],
    meaning: str,
    *,
    name: str | None = None,  # of flag and variable, where it is not the field's own
    flag: bool | str = True,  # or its name, where it is not the variable's
    alias: str | None = None,  # another name of the flag
    metavar: str | None = None,
) -> T:
    metadata = {"parse": parse, "meaning": meaning, "name": name, "flag": flag, "alias": alias, "metavar": metavar}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a server.

    Flags win over environment variables, these over the configuration file, Tiles' own and defaults.
    """

    model: str | None = _setting(
        None, str, "Model to serve: a folder, or a repo id from the Hugging Face cache", metavar="ID_OR_PATH"
    )
    demo: bool = _setting(False, _flag, "Serve the small demo model that ships with the server")
    models_dir: Path | None = _setting(
        None, _path, "Router mode: serve every model in this folder, each loaded on its first request", metavar="DIR"
    )
    load_by_name: bool = _setting(
        False,
        _flag,
        "Load the model that a request names, as Tiles' daemon or a cache of this machine has it, in place of the one "
        "before; on where Tiles is installed and nothing says what to serve",
    )
    max_models: int = _setting(
        4, _whole(1, 64), "Maximum number of models of --models-dir in memory at once", metavar="N"
    )
    sleep_idle_seconds: float = _setting(
        0.0,
        _seconds,
        "Unload a model of --models-dir after this many seconds without a request; 0 turns it off",
        metavar="SECONDS",
    )
    host: tuple[str, ...] = _setting(
        ("127.0.0.1",),
        _listed(listen_address),
        "Address to listen on, or unix:PATH; a non-loopback address needs --api-key or --insecure; separate several "
        "with commas",
        metavar="ADDRESS",
    )
    port: int = _setting(6969, _whole(0, 65535), "Port to listen on; 0 picks a free one")
    fd: tuple[str, ...] = _setting(
        (),
        _listed(_descriptor),
        "Socket to listen on instead of --host, by the number of its open file, or launchd:NAME; those that systemd "
        "opens are taken without it",
        metavar="N",
    )
    tls_cert: Path | None = _setting(
        None,
        _path,
        "Certificate, with those between it and its authority (PEM), to serve https; llama-server's --ssl-cert-file",
        alias="--ssl-cert-file",
        metavar="FILE",
    )
    tls_key: Path | None = _setting(
        None,
        _path,
        "Private key of --tls-cert (PEM, without a password); llama-server's --ssl-key-file",
        alias="--ssl-key-file",
        metavar="FILE",
    )
    api_key: tuple[str, ...] = _setting(
        (),
        _listed(_key),
        "API key that requests must carry, or name:key, by which its use is counted; separate several with commas",
        metavar="[NAME:]KEY",
    )
    api_key_file: Path | None = _setting(
        None, _path, "File with further API keys, one a line, as --api-key has them", metavar="FILE"
    )
    insecure: bool = _setting(False, _flag, "Allow a non-loopback address without an API key")
    allow_host: tuple[str, ...] = _setting(
        (),
        _listed(allowed_host),
        "Host names to accept besides loopback ones; separate several with commas",
        metavar="NAME",
    )
    allow_origin: tuple[str, ...] = _setting(
        (),
        _listed(allowed_origin),
        "Web origins to accept besides loopback ones (CORS); separate several with commas; * as in https://*.app.example",
        metavar="ORIGIN",
    )
    mmproj: Path | None = _setting(
        None,
        _path,
        "Vision part (mmproj) of the model, where both are GGUF files; one beside the model is found without",
        metavar="FILE",
    )
    allow_image_urls: bool = _setting(
        False, _flag, "Fetch images that requests name by http(s) URLs, from public addresses only"
    )
    image_tokens: int = _setting(
        1280,
        _whole(16, 2**16),
        "Maximum number of tokens of an image, for models whose images have more the larger they are; larger ones are "
        "made smaller",
        metavar="TOKENS",
    )
    context_length: int | None = _setting(
        None,
        _whole(16, 2**24),
        "Maximum context length in tokens; the model's own by default, which it exceeds only if no file states it",
        metavar="TOKENS",
    )
    max_batch: int = _setting(
        32, _whole(1, 256), "Maximum number of sequences decoded at the same time", metavar="ROWS"
    )
    max_queue: int = _setting(
        256, _whole(1, 65536), "Maximum number of queued requests; further ones get a 503", metavar="N"
    )
    lora: tuple[str, ...] = _setting(
        (),
        _adapters,
        "LoRA adapter (mlx-lm format) to apply, with an optional scale as in DIR:0.5; separate several with commas",
        metavar="DIR[:SCALE]",
    )
    no_downloads: bool = _setting(
        False, _flag, "Download and delete no models through HTTP; tiles-server pull and rm still do"
    )
    max_memory: int | None = _setting(
        None,
        _bytes,
        "Memory budget for weights, KV caches and the prefix cache; all free memory by default",
        metavar="SIZE",
    )
    cache_ram: int | None = _setting(
        None, _bytes, "Memory limit of the prefix cache; a quarter of the free memory by default", metavar="SIZE"
    )
    kv_bits: KVBits | None = _setting(
        None,
        _kv_bits,
        "Hold older tokens of KV caches in 8 or 4 bits a number, or in as many for keys and for values, as in 8,4; as "
        "they are by default",
        metavar="BITS[,BITS]",
    )
    cache_disk: int = _setting(
        4 * 2**30, _bytes, "Disk limit of the prefix cache, which survives restarts; 0 turns it off", metavar="SIZE"
    )
    gguf_cache: int = _setting(
        20 * 2**30,
        _bytes,
        "Disk limit of what GGUF files are converted to; 0 converts them at each load",
        metavar="SIZE",
    )
    prompt_lookup: int | None = _setting(
        None,
        _auto_or(_whole(0, 64)),
        "Prompt-lookup speculative decoding: maximum draft tokens per step, 0 for none; by default (auto) up to 16 "
        "where an answer is seen to copy",
        metavar="TOKENS",
    )
    embedding_model: str | None = _setting(
        None,
        str,
        "Model for embeddings or reranking beside the one that answers: a folder, or a repo id from the Hugging Face "
        "cache",
        metavar="ID_OR_PATH",
    )
    draft_model: str | None = _setting(
        None,
        str,
        "Draft model for speculative decoding (same vocabulary); used while a single request runs",
        metavar="ID_OR_PATH",
    )
    hostfile: Path | None = _setting(
        None,
        _path,
        "Serve one model over several machines: the JSON file of hosts that mlx.launch takes, with this machine first",
        metavar="FILE",
    )
    sharding: Sharding = _setting(
        "auto",
        _sharding,
        "What each machine of --hostfile computes: tensor is a share of every layer, for fast links; pipeline is some "
        "of the layers; auto is tensor where the model can be shared out so",
    )
    layer_split: tuple[int, ...] | None = _setting(
        None,
        _layers,
        "Layers of each machine of a pipeline, in the order of --hostfile, as in 40,24; about as many each by default",
        metavar="N,N",
    )
    group_seconds: float = _setting(
        10.0,
        _silence,
        "Seconds after which a machine of --hostfile that says nothing is taken for gone",
        metavar="SECONDS",
    )
    draft_tokens: int = _setting(4, _whole(1, 64), "Maximum draft tokens per step of --draft-model", metavar="TOKENS")
    blas: str = _setting(
        "auto",
        _one_of("auto", "system", "none"),
        "BLAS on the Linux CPU: auto is the system's, else the one installed with the server; system is the system's "
        "alone; none is MLX's own, the slowest",
    )
    tool_call_grammar: str = _setting(
        "lazy",
        _one_of("lazy", "off"),
        "Where the model may call tools but need not: lazy holds a call to the tools and their schemas from where it "
        "begins; off leaves calls free, but for strict tools",
    )
    decision_temperature: float = _setting(
        1.0,
        _temperature,
        "What log-probabilities are divided by for /v1/decisions and /v1/systemone; above 1 evens the answers out",
        metavar="T",
    )
    stop_repetition: bool = _setting(True, _switch, "Stop a completion that only repeats itself: on or off")
    sse_ping_interval: float = _setting(
        15.0,
        _seconds,
        "Send a keep-alive comment on a stream that has been silent for this many seconds",
        metavar="SECONDS",
    )
    max_body: int = _setting(100 * 2**20, _bytes, "Maximum size of a request body", metavar="SIZE")
    max_values: int = _setting(
        500_000,
        _whole(1000, 2**30),
        "Maximum number of JSON values in a request body: strings, numbers, keys, objects and arrays",
        metavar="N",
    )
    max_nesting: int = _setting(64, _whole(4, 512), "Maximum nesting depth of a request body", metavar="LEVELS")
    max_messages: int = _setting(4096, _whole(1, 2**20), "Maximum number of messages in a conversation", metavar="N")
    max_stop_strings: int = _setting(256, _whole(1, 65536), "Maximum number of stop strings per request", metavar="N")
    max_stop_length: int = _setting(4096, _whole(1, 2**20), "Maximum length of a stop string in bytes", metavar="BYTES")
    max_choices: int = _setting(
        64, _whole(1, 4096), "Maximum number of completions per request (prompts times n)", metavar="N"
    )
    watchdog_seconds: float = _setting(
        60.0,
        _seconds,
        "Restart the server when an engine step hangs for longer than this many seconds; 0 turns it off",
        metavar="SECONDS",
    )
    shutdown_seconds: float = _setting(
        5.0, _seconds, "Seconds that running requests get to finish after Ctrl-C or SIGTERM", metavar="SECONDS"
    )
    store: bool = _setting(
        True, _switch, "Store responses of /v1/responses on disk, for previous_response_id: on or off"
    )
    store_days: int = _setting(30, _whole(1, 3650), "Days after which stored responses are deleted", metavar="DAYS")
    store_size: int = _setting(
        2**30, _bytes, "Disk limit of stored responses; the oldest are deleted first", metavar="SIZE"
    )
    usage: bool = _setting(
        True,
        _switch,
        "Count requests and tokens by day, model, client and key, for 90 days, without any text: on or off",
    )
    otlp_traces_endpoint: str | None = _setting(
        None,
        _endpoint,
        "Send a trace of each answer to this address, by OTLP over HTTP (http://localhost:4318/v1/traces); needs "
        "tiles-server[otel]",
        metavar="URL",
    )
    keep_awake: bool = _setting(
        True,
        _switch,
        "Keep the machine from idle sleep, though not the display, while something is computed: on or off",
    )
    mcp_config: Path | None = _setting(
        None,
        _path,
        "JSON file with MCP servers: to start, for tools of the Web UI (/tools), or with a URL, for its proxy "
        "(/cors-proxy); needs --api-key",
        alias="--mcp-servers-config",
        metavar="FILE",
    )
    ui_settings: dict[str, Any] | None = _setting(
        None, _json_file, "JSON file with default settings for the llama.cpp Web UI", metavar="FILE"
    )
    log_format: str | None = _setting(
        None, _one_of("console", "json"), "Log format; console on a terminal and json elsewhere by default"
    )
    webui_dir: Path | None = _setting(
        None,
        _path,
        "Folder of a built Web UI to serve at /; webui in --data-dir by default",
        flag="webui",
        metavar="DIR",
    )
    open_browser: bool = _setting(False, _flag, "Open a browser at the address of the server", name="open")
    data_dir: Path = _setting(
        Path("~/.tiles/server"), _path, "Folder for caches, stored responses and the Web UI", metavar="DIR"
    )
    session_file: Path = _setting(
        Path("~/.tiles/server_session.json"),
        _path,
        "File that remembers the session of the Tiles CLI",
        flag=False,
        metavar="FILE",
    )
    keep_conversation: bool = _setting(
        False, _flag, "Keep the memory-mode conversation across restarts, in a file next to the session file"
    )
    skip_session_persist: bool = _setting(False, _flag, "Do not read or write the session file", flag=False)
    bootstrap_model: str | None = _setting(None, str, "Model to load when there is no session file", flag=False)
    bootstrap_model_cache_path: str | None = _setting(None, str, "Folder of the bootstrap model", flag=False)
    bootstrap_memory_path: str | None = _setting(None, str, "Memory folder of the bootstrap session", flag=False)
    bootstrap_system_prompt: str | None = _setting(None, str, "System prompt of the bootstrap session", flag=False)
    model_cache_path: str | None = _setting(None, str, "Folder that POST /models/load loads from", flag=False)
    daemon_url: str = _setting(DAEMON_URL, daemon_url, "Address of Tiles' daemon, on this machine", flag=False)
    presets: Presets = field(default_factory=Presets)  # the tables of the configuration file
    warnings: tuple[str, ...] = ()  # what could not be read; the log and `/start` say it

    @property
    def beyond_loopback(self) -> bool:
        """Whether other machines reach the server."""
        return not all(is_local(address) for address in self.host)

    @property
    def mcp_servers(self) -> McpConfig:
        """The servers of --mcp-config. Raises ValueError for a file that cannot be used."""
        return mcp_config.read(self.mcp_config) if self.mcp_config else McpConfig()

    @property
    def adapters(self) -> tuple[tuple[Path, float], ...]:
        """The folders of --lora with their scales."""
        return tuple(_adapter(text) for text in self.lora)

    def __post_init__(self) -> None:
        """Expand `~`, so that every reader sees the same path."""
        for name in ("data_dir", "session_file"):
            object.__setattr__(self, name, getattr(self, name).expanduser())

    def check(self) -> None:
        """Raise SettingError for settings that contradict each other or that name what is not there."""
        if (problem := next(self._problems(), None)) is not None:
            raise SettingError(problem)

    def _problems(self) -> Iterator[str]:
        if self.model and self.demo:
            yield "--model and --demo exclude each other"
        if self.load_by_name and self.models_dir:
            yield "--load-by-name is for one model at a time; --models-dir loads its models by name anyway"
        for folder, scale in self.adapters:
            if not folder.is_dir() or not isfinite(scale):
                yield f"--lora: {folder} is no folder, or {scale} is no scale"
        if self.webui_dir and not is_built(self.webui_dir):
            yield f"--webui: {self.webui_dir} is no built Web UI: it has no index.html"
        if self.draft_model is None and self.draft_tokens != Settings().draft_tokens:
            yield "--draft-tokens is for a draft model: give --draft-model too"
        if self.mmproj and not self.mmproj.is_file():
            yield f"--mmproj: {self.mmproj} is no file"
        yield from self._router_problems()
        yield from self._group_problems()
        if (self.tls_cert is None) != (self.tls_key is None):
            yield "--tls-cert and --tls-key belong together: give both"
        if self.tls_cert and self.tls_key and (problem := _tls_problem(self.tls_cert, self.tls_key)):
            yield problem
        if self.mcp_config is not None and not self.api_key:
            yield "--mcp-config lets whoever reaches the server run programs: give --api-key too"
        try:
            _ = self.mcp_servers
        except ValueError as error:
            yield f"--mcp-config: {error}"
        if self.otlp_traces_endpoint and not _has_opentelemetry():
            yield "--otlp-traces-endpoint needs OpenTelemetry: install tiles-server[otel]"
        if self.beyond_loopback and not self.api_key and not self.insecure:
            yield (
                f"listening on {', '.join(self.host)} lets other machines in: "
                "give --api-key, or --insecure to say that you mean it"
            )

    def _router_problems(self) -> Iterator[str]:
        folder = self.models_dir
        if folder is None:
            if self.max_models != Settings().max_models:
                yield "--max-models is for several models: give --models-dir too"
            if self.sleep_idle_seconds:
                yield "--sleep-idle-seconds is for several models: give --models-dir too"
            return
        if self.embedding_model:
            yield "--embedding-model is for one model: put it into the folder of --models-dir"
        if self.adapters:
            yield "--lora is for one model: give --model instead of --models-dir"
        if self.mmproj:
            yield "--mmproj is for one model: put it beside the file of its model"
        if not folder.is_dir():
            yield f"--models-dir: {folder} is no folder"
        if is_model(folder):
            yield f"--models-dir: {folder} is a model itself; --model serves it"

    def _group_problems(self) -> Iterator[str]:
        if self.hostfile is None:
            if self.layer_split or self.sharding != "auto":
                yield "--sharding and --layer-split are for several machines: give --hostfile too"
            if os.environ.get("MLX_RANK"):
                yield "MLX_RANK is set: mlx.launch would start a server on each machine; give --hostfile instead"
            return
        if not self.model and not self.demo:
            yield "--hostfile is for one model: give --model too"
        for name in ("models_dir", "load_by_name", "lora", "kv_bits", "draft_model", "embedding_model", "mmproj"):
            if getattr(self, name):
                yield f"--hostfile does not go with --{name.replace('_', '-')}"
        try:
            public = self.machines.public_addresses
        except ValueError as error:
            yield f"--hostfile: {error}"
            return
        if public and not self.insecure:
            yield (
                f"--hostfile: {public[0]} is an address of the internet, and what machines send each other is not "
                "encrypted: give addresses of your own network, or --insecure to say that you mean it"
            )

    @property
    def machines(self) -> Hostfile:
        """The machines of --hostfile. Raises ValueError for a file that cannot be used."""
        assert self.hostfile is not None
        return hostfiles.read(self.hostfile)

    @property
    def gguf_folder(self) -> Path:
        """Where GGUF files are converted to."""
        return self.data_dir / "gguf"

    @property
    def config_file(self) -> Path:
        """The configuration file, which need not be there."""
        return self.data_dir / config_file.NAME

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


def is_list(setting: "Field[Any]") -> bool:
    """Whether a setting has several values, so that its flag may come several times."""
    return isinstance(setting.default, tuple)


def default_text(setting: "Field[Any]") -> str:
    """Spell the default of a setting; empty where there is none, or the help says what happens then."""
    match setting.default:
        case None | () | False:
            return ""
        case tuple() as items:
            return ",".join(items)
        case True:
            return "on"
        case float() as number:
            return f"{number:g}"
        case int() as size if size >= 2**20:
            return f"{size // 2**20}M"
    return str(setting.default)


def described() -> list["Field[Any]"]:
    """Give every setting with its description, in the order of the docs."""
    return [item for item in fields(Settings) if item.metadata]


def read(flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from flags (by setting name, None for absent), then from the environment, the file, Tiles.

    Raises SettingError for a value that cannot be used.
    """
    return read_with_sources(flags, environ)[0]


def read_with_sources(
    flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Settings, dict[str, str]]:
    """Read the settings, and say where each that has no default comes from: "--port", "TILES_PORT", a path, "Tiles".

    Raises SettingError for a value that cannot be used.
    """
    environ = os.environ if environ is None else environ
    texts = {name: value for name, value in (flags or {}).items() if value is not None and value != ()}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in described():
        if setting.name in texts:
            sources[setting.name] = flag(setting) or setting.name
            values[setting.name] = _parsed(setting, texts[setting.name], sources[setting.name])
        elif (text := environ.get(variable(setting))) not in (None, ""):
            sources[setting.name] = variable(setting)
            values[setting.name] = _parsed(setting, text, variable(setting))
    from_file, presets = _of_file(values.get("data_dir", Settings().data_dir))
    if values.get("model") or values.get("demo"):  # which says what to serve: the file may say another
        from_file = {name: value for name, value in from_file.items() if name not in {"model", "demo"}}
    sources |= {name: source for name, (source, _) in from_file.items() if name not in values}
    values = {name: value for name, (_, value) in from_file.items()} | values
    if path := values.get("api_key_file"):
        values["api_key"] = (*values.get("api_key", ()), *_keys_of(path))
        sources["api_key"] = ", ".join(sources[name] for name in ("api_key", "api_key_file") if name in sources)
    from_tiles = _of_tiles(values, environ)
    sources |= {name: "Tiles" for name in from_tiles if name not in values and name != "warnings"}
    return Settings(**from_tiles | values, presets=Presets(presets)), sources


def _of_file(data_dir: Path) -> tuple[dict[str, tuple[str, Any]], Mapping[str, Preset]]:
    """Give the settings of the configuration file, each with where it stands, and its tables of models."""
    try:
        file = config_file.read(data_dir / config_file.NAME)
    except ConfigError as error:
        raise SettingError(str(error)) from None
    by_key = {name[2:].replace("-", "_"): setting for setting in described() if (name := flag(setting))}
    del by_key["data_dir"]  # where the file is
    values = {}
    for key, text in file.settings.items():
        if (setting := by_key.get(key)) is None:
            close = get_close_matches(key, by_key, 1)
            raise SettingError(f"{file.path}: {key[:100]} is no setting{f'; {close[0]} is one' if close else ''}")
        if isinstance(text, tuple) and not is_list(setting):
            raise SettingError(f"{file.path}: {key}: give one value, no list")
        values[setting.name] = str(file.path), _parsed(setting, text, f"{file.path}: {key}")
    return values, file.presets


def _keys_of(path: Path) -> tuple[str, ...]:
    """Read the keys in a file, one a line. Raises SettingError."""
    try:
        keys = tuple(_key(line.strip()) for line in path.read_text("utf-8").splitlines() if line.strip())
    except OSError as error:
        raise SettingError(f"--api-key-file: {path} cannot be read: {(error.strerror or 'why?').lower()}") from None
    except ValueError:
        raise SettingError(f"--api-key-file: {path} has a line that is no key") from None
    if not keys:
        raise SettingError(f"--api-key-file: {path} has no key in it")
    return keys


def _has_opentelemetry() -> bool:
    try:
        return find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:  # not even its parent is there
        return False


def _tls_problem(certificate: Path, key: Path) -> str | None:
    """Say why a certificate and its key cannot be used. A password would be asked for where nobody sits."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        return f"--tls-cert {certificate} and --tls-key {key} cannot be used: {error.reason or error}"
    except (OSError, ValueError) as error:
        return f"--tls-cert {certificate} or --tls-key {key} cannot be read: {getattr(error, 'strerror', '') or error}"
    return None


def _of_tiles(values: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Give what follows from Tiles, which starts this server without flags and variables."""
    is_installed = installation.is_installed(environ)
    more: dict[str, Any] = {}
    if is_installed and not any(values.get(name) for name in ("model", "demo", "models_dir")):
        more["load_by_name"] = True
    if "context_length" not in values and (is_installed or environ.get("TILES_CONFIG")):
        daemon = Daemon(values.get("daemon_url", DAEMON_URL)) if is_installed else None
        config = tiles_config.read(daemon, environ)
        more["context_length"] = config.context_length
        more["warnings"] = (config.warning,) if config.warning else ()
    return more


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
