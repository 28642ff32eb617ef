"""`tiles-server serve`: the server process, from its flags to its exit."""

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import click
import uvicorn

from app import log
from app.addresses import socket_path, url
from app.commands.hangup import Hangup
from app.commands.listeners import open_listeners, port_of, remove_files
from app.commands.process import SIGNALS, Successor, end, end_at_once, end_within
from app.commands.setting_options import setting_options
from app.services import heap
from app.services.ui.folder import is_built
from app.settings import SettingError, Settings, read
from app.standard_error import StandardError

if TYPE_CHECKING:  # it is imported once the port is known to be free
    from app.services.model_service import ModelService

_MOST_MESSAGE = 16 * 2**20  # bytes that come over a WebSocket in one piece
_CLOSING_SECONDS = 30.0  # at most, to finish disk writes and close everything; mostly far less


@click.command()
@setting_options
def serve(**flags: Any) -> None:
    """Serve a model: the demo model (--demo), a folder or downloaded model (--model), or several (--models-dir)."""
    try:
        settings = read(flags)
        listeners, in_force = open_listeners(settings)
    except (SettingError, OSError) as error:
        _print(f"tiles-server: {error}")
        sys.exit(2)
    log.set_up(settings.log_format)
    _run(in_force, listeners, Hangup(settings, flags))


def _run(settings: Settings, listeners: list[socket.socket], hangup: Hangup) -> None:
    with heap.permanent():
        from app.application import create_app
        from app.connections import Connections, raise_limit
        from app.services.model_service import ModelService
        from app.socket_protocol import SocketProtocol, UpgradingProtocol

    raise_limit()
    port = port_of(listeners, settings.port)
    successor = Successor(port, settings.watchdog_seconds)
    on_lost = partial(successor.come, is_slow=False)
    service = ModelService(settings, _on_progress(), successor.come, on_lost=on_lost)
    config = uvicorn.Config(
        create_app(settings, service),
        log_config=None,
        access_log=False,
        server_header=False,
        loop="uvloop",
        http=cast("Any", partial(UpgradingProtocol, Connections())),
        ws=SocketProtocol,
        ws_max_size=min(settings.max_body, _MOST_MESSAGE),
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=75,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    addresses = [url(host, port, tls=bool(settings.tls_cert)) for host in settings.host]
    _announce(addresses, has_ui=is_built(settings.ui_folder))
    if settings.open_browser and (front := _front(addresses)):
        import webbrowser

        webbrowser.open(front)
    try:
        _Server(config, service, successor, settings.shutdown_seconds, hangup).run(sockets=listeners)
    except SystemExit as failure:  # it could not start
        end(failure.code if isinstance(failure.code, int) else 1)
    remove_files(settings)
    end()


def _on_progress() -> Callable[[str, float], None]:
    """Give a progress bar on a terminal; elsewhere it is not even imported."""
    if not sys.stderr.isatty():
        return lambda model, fraction: None
    from app.commands.loading_bar import LoadingBar

    return LoadingBar()


def _announce(addresses: Sequence[str], *, has_ui: bool) -> None:
    """Say where the server is."""
    lines = [f"API   {address}" if socket_path(address) else f"API   {address}/v1" for address in addresses]
    if front := _front(addresses):
        lines += [f"Docs  {front}/schema", f"{'Chat' if has_ui else 'Home'}  {front}/"]
    _print("\n".join(lines))


def _front(addresses: Sequence[str]) -> str | None:
    """Give the first address that a browser can open."""
    return next((address for address in addresses if not socket_path(address)), None)


def _print(text: str) -> None:
    """Write to standard error, if it is still open."""
    StandardError().write(f"{text}\n")


class _Server(uvicorn.Server):
    """Stops in steps: docs/engine.md, "Shutdown".

    The first signal closes the listener and gives running answers some time; the second ends them at once, with an
    error; the third ends the process, as does a shutdown that takes too long.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        service: "ModelService",
        successor: Successor,
        shutdown_seconds: float,
        hangup: Hangup,
    ) -> None:
        super().__init__(config)
        self._service = service
        self._successor = successor
        self._shutdown_seconds = shutdown_seconds
        self._hangup = hangup
        self._signals = 0
        self._shutdown_task: asyncio.Task[None] | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal has ended the server."""
        self._loop, self._hurry = asyncio.get_running_loop(), asyncio.Event()
        self._hangup.follow(end=lambda: self.handle_exit(signal.SIGTERM, None))
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle SIGINT and SIGTERM, with exit code 0. The next one may come in the middle of this."""
        number = self._signals = self._signals + 1
        if sig not in SIGNALS or number > 2:
            end_at_once()
        self._successor.call_off()
        if number == 1:
            end_within(self._shutdown_seconds + _CLOSING_SECONDS)
            self._loop.call_soon_threadsafe(self._begin_shutdown)
        else:
            self._loop.call_soon_threadsafe(self._hurry.set)

    def _begin_shutdown(self) -> None:
        self._shutdown_task = self._loop.create_task(self._end_answers())

    async def _end_answers(self) -> None:
        if self.started:
            for server in self.servers:
                server.close()
        hurry = asyncio.ensure_future(self._hurry.wait())
        drained = asyncio.ensure_future(self._service.drain(self._shutdown_seconds))
        await asyncio.wait({drained, hurry}, return_when=asyncio.FIRST_COMPLETED)
        if not drained.done():
            await self._service.drain(0)
        drained.cancel()
        hurry.cancel()
        self.should_exit = True
