"""What stands before every request: who may ask from where, and the headers of every answer."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from simpleworkflow.web.errors import ApiError
from simpleworkflow.web.routes import error_answer

__all__ = ["LOCAL_HOSTS", "Guard", "check_origin"]

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'self'; form-action 'self'; object-src 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Gives every answer the security headers, and refuses names of this host that are not ``hosts``.

    A page of another site cannot read answers of ours, unless its own name is made to lead to this machine (DNS
    rebinding): then the browser says that name.  ``hosts`` None: any name, as who asks has to have a key.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        host = host_of(Headers(scope=scope).get("host", ""))
        if self._hosts is None or host in self._hosts:
            await self._app(scope, receive, send_with_headers)
            return
        refusal = ApiError(
            "not_permitted",
            f"host: expected one of {', '.join(sorted(self._hosts))}, got {host[:100]!a}",
            "without API keys the server answers to this machine alone; see `wf server --help`",
        )
        await error_answer(refusal)(scope, receive, send_with_headers)


def host_of(header: str) -> str:
    """Return the name in a Host header, without its port."""
    name, colon, port = header.rpartition(":")
    return (name if colon and port.isdigit() else header).lower()


def check_origin(request: Request) -> None:
    """Do nothing if a request that changes something does not come from a page of another site.

    Raises:
        ApiError: it does.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    is_ours = site in (None, "same-origin", "none")
    if origin is not None:
        is_ours = is_ours and urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()
    if not is_ours:
        raise ApiError(
            "not_permitted",
            f"origin: a page of another site may change nothing, got {(origin or site or '')[:100]!a}",
            "programs send their key in the header Authorization: Bearer",
        )
