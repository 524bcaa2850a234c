"""The word to answers that have no end of their own (event streams) that the server is about to stop."""

import asyncio


class Closing:
    """Said once, in the server's event loop; heard by all."""

    def __init__(self) -> None:
        self._said = asyncio.Event()

    def begin(self) -> None:
        self._said.set()

    @property
    def begun(self) -> bool:
        return self._said.is_set()

    async def wait(self) -> None:
        await self._said.wait()
