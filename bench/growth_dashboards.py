"""Ask a server what so many open pages *Now* ask, as often as they do, until it is ended.

python growth_dashboards.py PORT COUNT

Prints `open` once each page has asked everything.
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import suppress

# What the page asks, and every how many seconds: dashboard/src/pages/now.tsx.
ASKED = {"stats?window_seconds=300": 2, "types?window_seconds=300": 5, "workers": 5, "health": 60}


async def ask(port: int, path: str, seconds: float, has_asked: asyncio.Event) -> None:
    """Ask for one thing again and again; as a browser does, on a kept connection unless the server has closed it."""
    question = f"GET /api/v1/{path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                writer.write(question)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if not head.startswith(b"http/1.1 200"):
                    raise SystemExit(f"{path} was answered with {head.splitlines()[0]!r}")
                await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
                has_asked.set()
                await asyncio.sleep(seconds * random.uniform(0.9, 1.1))
        writer.close()


async def main(port: int, count: int) -> None:
    """Be so many pages."""
    async with asyncio.TaskGroup() as pages:
        asked = []
        for path, seconds in [*ASKED.items()] * count:
            asked.append(asyncio.Event())
            pages.create_task(ask(port, path, seconds, asked[-1]))
        for one in asked:
            await one.wait()
        print("open", flush=True)


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
