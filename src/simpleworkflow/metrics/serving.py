"""``GET /metrics``: a small server of its own, in a thread of the process that watches over the worker."""

from __future__ import annotations

import socket
import threading
from importlib.util import find_spec
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from simpleworkflow.errors import InvalidInput
from simpleworkflow.metrics.tallies import Tallies

__all__ = ["MetricsServer", "check_extra", "listen"]

BACKLOG = 16
# Who sends nothing for so long has no thread of ours any more.
SILENCE_SECONDS = 5.0


def check_extra() -> None:
    """Return if the library that the metrics need is installed.

    Raises:
        InvalidInput: it is not.
    """
    if find_spec("prometheus_client") is None:
        raise InvalidInput("metrics need prometheus-client; pip install 'simpleworkflow[metrics]'")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; port 0 is one that is free.

    Raises:
        InvalidInput: the extra is missing, or nobody can listen there.
    """
    check_extra()
    try:
        kind, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=kind, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(
            f"metrics cannot be served at {host[:200]}:{port}: {reason}; choose another port or host"
        ) from None


class MetricsServer:
    """Serves the metrics of a worker on a socket that listens, until closed.  ``url`` is where."""

    def __init__(self, listening: socket.socket, tallies: Tallies) -> None:
        from prometheus_client import CollectorRegistry, make_wsgi_app

        from simpleworkflow.metrics.worker import WorkerCollector

        registry = CollectorRegistry(auto_describe=False)
        registry.register(WorkerCollector(tallies))
        self._server = _Server(listening, _only_metrics(make_wsgi_app(registry)))
        host, port = listening.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()


def _only_metrics(app: Any) -> Any:
    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] != "GET":
            start_response("405 Method Not Allowed", [("Allow", "GET")])
            return []
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"the metrics are at /metrics\n"]
        return app(environ, start_response)

    return answer


class _Handler(WSGIRequestHandler):
    timeout = SILENCE_SECONDS

    def log_message(self, *_: object) -> None:
        """Say nothing: whoever scrapes does so without end."""

    def address_string(self) -> str:
        return str(self.client_address[0])  # not its name: that would be a question to a name server


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, listening: socket.socket, app: Any) -> None:
        super().__init__(listening.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self.server_name, self.server_port = listening.getsockname()[:2]
        self.setup_environ()
        self.set_app(app)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that go away."""
