"""The server that a coding agent is started against: one that runs, or one that is started for it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from app.commands import foreground, launch_text
from app.commands.launch_target import Choice, LaunchServer
from app.commands.own_server import OwnServer, wait_until_loaded
from app.commands.server_client import NoServer, ServerClient, ServerFailure
from app.services import bootstrap
from app.services.coding_agents import ServerFacts
from app.services.errors import LoadFailed
from app.settings import Settings

_ASSUMED_CONTEXT = 32_768  # where nothing can be asked
_THINKING = ("enable_thinking", "<think>", "reasoning_effort", "<|channel|>")  # in the template of who can


@contextmanager
def running(choice: Choice, settings: Settings, *, log_path: Path) -> Iterator[LaunchServer]:
    """Give a server that can answer, for as long as this lasts. Raises ServerFailure, SettingError and OSError."""
    client = _client(choice, settings)
    progress = launch_text.Progress()
    try:
        wait_until_loaded(client, progress)
    except NoServer:
        if choice.url:
            raise
    else:
        yield LaunchServer(read_facts(client, _key(settings), _wanted_model(choice)))
        return
    _require_model(settings)
    launch_text.note("Starting a server")
    with ExitStack() as end:
        with foreground.signals_later():
            server = OwnServer(choice.flags(), choice.api_key, log_path)
            end.callback(server.stop)
        client = ServerClient(server.wait_until_up(), _key(settings), settings.tls_cert)
        wait_until_loaded(client, progress, server)
        yield LaunchServer(read_facts(client, _key(settings), choice.model if choice.models_dir else None), is_own=True)
        if choice.keep_server:
            end.pop_all()
            launch_text.note(f"The server at {client.url} runs on; `kill {server.process_id}` ends it")


def expect(choice: Choice, settings: Settings) -> LaunchServer:
    """Say which server an agent would be started against, and start none. Raises ServerFailure."""
    client = _client(choice, settings)
    try:
        client.get_health()
        return LaunchServer(read_facts(client, _key(settings), _wanted_model(choice), autoload=False))
    except NoServer:
        if choice.url:
            raise
    facts, assumed = _facts_at_rest(choice, settings, client.base_url)
    return LaunchServer(facts, is_own=True, flags=tuple(choice.flags()), stays=choice.keep_server, assumed=assumed)


def read_facts(client: ServerClient, key: str | None, name: str | None, *, autoload: bool = True) -> ServerFacts:
    """Ask a server for what an agent has to know of it, loading the model if it has several. Raises ServerFailure."""
    model = _pick(client, name)
    load = "" if autoload else "&autoload=false"
    try:
        props = client.get(f"/props?model={quote(model, safe='')}{load}")
        context, template = int(props["default_generation_settings"]["n_ctx"]), str(props["chat_template"])
    except (KeyError, TypeError, ValueError):
        raise ServerFailure(f"{client.url} does not say how long the context of {model} is") from None
    if name is not None:
        _require_served(client, name, str(props.get("model_path", "")))
    reasoning = any(word in template for word in _THINKING)
    modalities = props.get("modalities")  # older servers have none
    sees = isinstance(modalities, dict) and modalities.get("vision") is True
    return ServerFacts(client.base_url, model, context, reasoning, key, sees)


def _pick(client: ServerClient, name: str | None) -> str:
    """Give the name of the model to use."""
    if name is not None:
        return name
    models = client.get("/v1/models")["data"]
    ids = [str(model["id"]) for model in models]
    loaded = [str(model["id"]) for model in models if model.get("status", {}).get("value") == "loaded"]
    for group in (loaded, ids):
        if len(group) == 1:
            return group[0]
    if not ids:
        raise ServerFailure(f"The server at {client.url} serves no model: name one with --model")
    raise ServerFailure(f"The server at {client.url} has several models: name one with --model: {', '.join(ids)}")


def _require_served(client: ServerClient, name: str, path: str) -> None:
    """Raise ServerFailure if the model that answers is another one: a server with one model takes any name for it."""
    ids = client.models()
    if name not in ids and Path(name).expanduser().absolute() != Path(path):
        raise ServerFailure(f"The server at {client.url} has no model {name}: it serves {', '.join(ids) or 'none'}")


def _facts_at_rest(choice: Choice, settings: Settings, url: str) -> tuple[ServerFacts, bool]:
    """Give what a server that is started would say, from the files of its model; and whether that is assumed."""
    facts = ServerFacts(
        url, choice.model or "MODEL", settings.context_length or _ASSUMED_CONTEXT, False, _key(settings)
    )
    candidates = bootstrap.candidates(settings)
    if not candidates or settings.models_dir:
        return facts, True
    try:
        folder = bootstrap.locate(candidates[0])
    except LoadFailed as error:
        raise ServerFailure(error.message) from None
    context = min(folder.context.tokens, settings.context_length or folder.context.tokens)
    return replace(facts, model=folder.id, context=context, sees=folder.sees), False


def _client(choice: Choice, settings: Settings) -> ServerClient:
    client = ServerClient.of(settings, choice.url)
    if client.socket_path:
        raise ServerFailure(f"Coding agents cannot use {client.url}: give the server a --host with a port, too")
    return client


def _key(settings: Settings) -> str | None:
    return next(iter(settings.api_key), None)


def _wanted_model(choice: Choice) -> str | None:
    return bootstrap.DEMO if choice.demo else choice.model


def _require_model(settings: Settings) -> None:
    settings.check()
    if not settings.models_dir and not settings.load_by_name and not bootstrap.candidates(settings):
        raise ServerFailure(
            "No server runs, and nothing says which model to serve: give --model ID_OR_PATH before the agent's name "
            "(`tiles-server models` lists those on this machine), or --demo"
        )
