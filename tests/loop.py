"""An event loop that complains."""

import asyncio
from collections.abc import Coroutine
from typing import Any


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test; what asyncio complains of in the end is an error, too."""
    complaints: list[Any] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        await work

    asyncio.run(watched())
    assert complaints == [], complaints
