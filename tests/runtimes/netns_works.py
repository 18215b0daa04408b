"""The works of the tests with a lost network."""

from __future__ import annotations

import asyncio
import os

from lightwork import Work

ANSWER = b"HTTP/1.0 200 OK\r\n\r\nfrom the island"


class Counter(Work):
    """Counts up to a number, and keeps every number in its state."""

    def __init__(self) -> None:
        super().__init__(parallel=True, raise_exception=True)
        self.numbers: list[int] = []

    async def run(self, upto: int) -> tuple[int, int]:
        for number in range(upto):
            self.numbers.append(number)
            await asyncio.sleep(0.01)
        return os.getpid(), len(self.numbers)


class Serve(Work):
    """Answers every request with `ANSWER`."""

    def __init__(self) -> None:
        super().__init__(parallel=True)

    async def run(self) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, self.host, self.port)
        async with server:
            await server.serve_forever()
