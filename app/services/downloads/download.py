"""One download of the server: a process that fetches, and how far it is."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Literal

import msgspec

from app.services.downloads.plan import Plan
from app.services.errors import AppError, DiskFull, DownloadFailed, DownloadForbidden, ModelNotFound

_ERRORS = {one.__name__: one for one in (DiskFull, DownloadFailed, DownloadForbidden, ModelNotFound)}
_CODE = Path(__file__).parents[3]

DownloadStatus = Literal["queued", "downloading", "failed"]


class Order(msgspec.Struct, frozen=True):
    """What the process is to download."""

    plan: Plan
    cache: str  # hub folder


class Failure(msgspec.Struct, frozen=True):
    """What the process says when it could not."""

    error: str  # name of the class
    message: str


class Download:
    """A model that is downloaded. On the event loop."""

    def __init__(self, name: str, plan: Plan, cache: Path) -> None:
        self.names = [name]  # as requests have it
        self.plan = plan
        self.status: DownloadStatus = "queued"
        self.error: str | None = None  # why it failed
        self.present: dict[str, int] = {}  # bytes of each file that are there, by its path
        self.task: asyncio.Task[None] | None = None
        self._cache = cache

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.task is None or self.task.done()

    async def look(self) -> None:
        """See on the disk how far it is."""
        self.present = await asyncio.to_thread(self.plan.present, self._cache)

    async def fetch(self) -> None:
        """Run the process that fetches. Raises AppError. To cancel this ends the process; what is there stays."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.services.downloads"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # warnings of libraries about retries, in no format of a log
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(_CODE), *filter(None, [os.getenv("PYTHONPATH")])])},
            start_new_session=True,  # Ctrl-C is for the server
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(Order(self.plan, str(self._cache))) + b"\n")
            answer = await process.stdout.read()
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            process.stdin.close()
        if answer or process.returncode:
            raise _error(answer)


def _error(answer: bytes) -> AppError:
    try:
        failure = msgspec.json.decode(answer, type=Failure)
    except msgspec.DecodeError:
        return DownloadFailed("The process that downloads has ended. The same again continues.")
    return _ERRORS.get(failure.error, DownloadFailed)(failure.message)
