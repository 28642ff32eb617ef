"""The machine is kept awake while something is computed, and no longer; the program that does it is a script here."""

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from app.services.active_generations import ActiveGenerations
from app.services.awake import Awake, command
from app.services.engine.scheduler.running_generation import RunningGeneration
from tests.conftest import running, wait_for
from tests.loop import run


def program(folder: Path, script: str, name: str = "keeper") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another process writes
            await asyncio.sleep(0.01)


def test_a_program_runs_while_there_is_work_and_again_with_the_next(tmp_path: Path) -> None:
    log = tmp_path / "log"
    keeper = program(tmp_path, f'echo "began $*" >>{log}; cat; echo ended >>{log}')
    lines: Callable[[], list[str]] = lambda: log.read_text().split("\n")[:-1] if log.exists() else []  # noqa: E731

    async def work() -> None:
        active = ActiveGenerations()
        async with Awake(active, [str(keeper), "-i"], patience=0, linger=0.01).running():
            for number in (1, 2):
                request = RunningGeneration(lambda _: None)
                active.add([request])
                await until(lambda number=number: len(lines()) == 2 * number - 1)  # type: ignore[misc]
                request.cancel()
                await until(lambda number=number: len(lines()) == 2 * number)  # type: ignore[misc]

    run(work())
    assert lines() == ["began -i", "ended"] * 2


def test_it_ends_with_the_server(tmp_path: Path) -> None:
    log = tmp_path / "log"
    keeper = program(tmp_path, f"echo began >>{log}; cat; echo ended >>{log}")

    async def work() -> None:
        active = ActiveGenerations()
        async with Awake(active, [str(keeper)], patience=0, linger=60).running():
            active.add([RunningGeneration(lambda _: None)])
            await until(log.exists)

    run(work())
    wait_for(lambda: log.read_text() == "began\nended\n", what="the end of the program")


@pytest.mark.parametrize("script", ["exit 1", None], ids=["fails", "is absent"])
def test_a_program_that_does_not_work_is_tried_once(tmp_path: Path, script: str | None) -> None:
    log = tmp_path / "log"
    keeper = program(tmp_path, f"echo began >>{log}; {script}") if script else tmp_path / "absent"

    async def work() -> None:
        active = ActiveGenerations()
        awake = Awake(active, [str(keeper)], patience=0, linger=0.01)
        async with awake.running():
            active.add([RunningGeneration(lambda _: None)])
            if script:
                await until(log.exists)
            for _ in range(50):
                await asyncio.sleep(0.01)  # time to try again, were it to

    run(work())
    assert not script or log.read_text() == "began\n"


@pytest.mark.slow
@pytest.mark.skipif(os.uname().sysname != "Linux", reason="the program of macOS has another name")
def test_the_server_keeps_the_machine_awake_while_it_answers(tiny: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    program(tmp_path, f'echo "$*" >>{log}; cat; echo ended >>{log}', "systemd-inhibit")
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with running(tmp_path, "--model", str(tiny), env=path) as server:
        assert not log.exists()
        # One answer after the other, without a pause, until they have taken long enough.
        wait_for(lambda: server.chat(max_tokens=500, ignore_eos=True) and log.exists(), what="the program")
        assert log.read_text().startswith("--what=idle")
        server.stop()
    wait_for(lambda: log.read_text().endswith("ended\n"), what="the end of the program")


def test_a_system_without_such_a_program_does_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command() is None
