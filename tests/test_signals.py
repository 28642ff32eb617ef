"""Signals that come faster than one of them is obeyed."""

import asyncio
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from app.commands import serve
from app.commands.hangup import Hangup
from app.commands.process import Successor
from app.services.model_service import ModelService
from app.settings import Settings
from tests.conftest import wait_for


def test_a_signal_in_the_middle_of_another_does_not_undo_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "end_within", lambda seconds: None)  # it would end the tests

    async def nothing(scope: Any, receive: Any, send: Any) -> None: ...

    class Interrupted(Successor):
        def call_off(self) -> None:
            super().call_off()
            if server._signals == 1:
                server.handle_exit(signal.SIGTERM, None)

    config = uvicorn.Config(nothing, lifespan="off", log_config=None)
    settings = Settings(data_dir=tmp_path, shutdown_seconds=60.0)
    server = serve._Server(
        config, ModelService(settings), Interrupted(0, 60.0), settings.shutdown_seconds, Hangup(settings, {})
    )

    async def live() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            serving = asyncio.create_task(server.serve([listener]))
            await asyncio.to_thread(wait_for, lambda: server.started, what="the server")
            server.handle_exit(signal.SIGINT, None)
            await asyncio.wait_for(serving, 10)

    asyncio.run(live())
    assert server._signals == 2
