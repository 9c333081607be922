"""Serve the application with uvicorn: one socket, one process, a stop that takes seconds."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from simpleworkflow.errors import DatabaseUnavailable, InvalidInput, NotPermitted
from simpleworkflow.maintenance import Folding, Operations, Service, repeat
from simpleworkflow.web.sse import Streams
from simpleworkflow.web.store import Store

__all__ = ["listen", "serve"]

STOP_SECONDS_MAX = 5
CONNECTIONS_MAX = 1000
OPERATIONS_SECONDS = 2.0
REST_SECONDS = 60.0
# A client that takes nothing of what it is sent is cut off by the kernel after this time.
SILENT_SECONDS_MAX = 30


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on ``host`` and ``port``; 0: a port that is free.

    Raises:
        InvalidInput: the address cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.create_server(address[:2], family=family, backlog=512)
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else error.strerror
        raise InvalidInput(f"cannot listen on {host[:100]!a}, port {port}: {reason}") from None
    # What is accepted inherits it: else the body of an answer waits 40 ms for the receipt of its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_SECONDS_MAX * 1000)
    return listening


class _Server(uvicorn.Server):
    """Says that it is there, and ends the streams before it waits for the requests."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None], streams: Streams) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._streams = streams

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._streams.close()
        await super().shutdown(sockets)


async def serve(app: Starlette, listening: socket.socket, *, on_started: Callable[[], None]) -> None:
    """Serve ``app`` on a socket until SIGTERM or SIGINT; then end what is open within ``STOP_SECONDS_MAX``."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=STOP_SECONDS_MAX,
        lifespan="off",
        ws="none",
    )
    upkeep = [asyncio.ensure_future(repeat(one)) for one in _services(app.state.store)]
    try:
        await _Server(config, on_started, app.state.streams).serve(sockets=[listening])
    finally:
        for one in upkeep:
            one.cancel()
        await asyncio.gather(*upkeep, return_exceptions=True)
        app.state.store.close()


def _services(store: Store) -> list[Service]:
    """Return the upkeep that a server does as workers do, so that an operation goes on where there is none."""
    carrier = f"server:{socket.gethostname()}:{os.getpid()}"
    return [
        _WherePermitted(one)
        for one in (Folding(store), Operations(store, carrier, look_seconds=OPERATIONS_SECONDS))
    ]


class _WherePermitted:
    """A service that rests where the server's role in the database may only read."""

    def __init__(self, service: Service) -> None:
        self.name = service.name
        self.slack_seconds = 0.0  # a server has no polls whose wake-ups it could share
        self._service = service

    async def run_once(self) -> float:
        """Do what there is to do, or rest."""
        try:
            return await self._service.run_once()
        except NotPermitted:
            return REST_SECONDS
        except TimeoutError as error:
            raise DatabaseUnavailable(str(error)) from error
