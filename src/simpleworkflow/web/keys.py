"""API keys: made once, kept as digests, compared in constant time; and who asks."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from time import monotonic
from typing import Annotated

from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

import simpleworkflow
from simpleworkflow.statements.serving import Key, list_keys
from simpleworkflow.web.asking import read_body
from simpleworkflow.web.bodies import In, MeAnswer
from simpleworkflow.web.errors import ApiError
from simpleworkflow.web.identity import Identity
from simpleworkflow.web.routes import answer
from simpleworkflow.web.store import Store

__all__ = ["COOKIE", "Keys", "digest_of", "make_key"]

COOKIE = "wf_key"
# How long a key that was revoked may still be taken.
READ_SECONDS = 1.0
LOGIN_BYTES_MAX = 8192  # whoever reaches the server may send it
KEY_SECONDS_MAX = 2.0


def make_key() -> str:
    """Return a new key: 32 random bytes, after a word by which scanners of secrets know it."""
    return f"wf_{secrets.token_urlsafe(32)}"


def digest_of(key: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


class LoginBody(In):
    """The key that the browser is to keep."""

    key: Annotated[str, Meta(max_length=1000)]


class Keys:
    """Tells who asks, by the keys in the database as they were a second ago at most.

    ``is_open``: while there is no key at all, whoever asks may do all.
    """

    def __init__(self, store: Store, *, is_open: bool) -> None:
        self._store = store
        self._is_open = is_open
        self._keys: Sequence[Key] = ()
        self._read_at = float("-inf")

    async def identify(self, request: Request) -> Identity:
        """Return who asks.

        Raises:
            ApiError: nobody whom we know.
        """
        return await self._identity_of(said_key(request))

    async def log_in(self, request: Request) -> Response:
        """Let the browser keep a key where no script can read it."""
        body = await read_body(request, LoginBody, bytes_max=LOGIN_BYTES_MAX)
        who = await self._identity_of(body.key)
        response = answer(MeAnswer(who.name, who.role, simpleworkflow.__version__))
        response.set_cookie(
            COOKIE,
            body.key if who.name is not None else "",
            path=_path(request),
            # A proxy that ends TLS tells nothing of it, but a browser says where its page is from.
            secure=request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:"),
            httponly=True,
            samesite="strict",
        )
        return response

    async def log_out(self, request: Request) -> Response:
        """Let the browser forget the key."""
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path=_path(request), httponly=True, samesite="strict")
        return response

    async def _identity_of(self, key: str | None) -> Identity:
        keys = await self._current()
        if not keys and self._is_open:
            return Identity(None, "admin")
        digest = digest_of(key or "")
        found = None
        for one in keys:  # all of them: how long it takes tells nothing
            if hmac.compare_digest(one.digest, digest) and one.revoked_at is None:
                found = one
        if key and found is not None:
            return Identity(found.name, found.role)  # type: ignore[arg-type]  # the table's check
        raise ApiError(
            "unauthenticated",
            "expected an API key that is known, got " + ("another" if key else "none"),
            "send Authorization: Bearer KEY; `wf server key add` makes one",
        )

    async def _current(self) -> Sequence[Key]:
        if monotonic() - self._read_at > READ_SECONDS:
            asked_at = monotonic()
            self._keys = await self._store.ask(list_keys(), seconds=KEY_SECONDS_MAX)
            self._read_at = asked_at
        return self._keys


def said_key(request: Request) -> str | None:
    """Return the key that a request comes with: in its header, else in its cookie."""
    scheme, _, said = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return str(said).strip()
    found: str | None = request.cookies.get(COOKIE)
    return found


def _path(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/") + "/"
