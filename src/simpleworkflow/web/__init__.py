"""The REST API and the dashboard, as an ASGI application; it needs the extra ``simpleworkflow[server]``."""

from __future__ import annotations

from simpleworkflow.errors import MissingExtra

try:
    from simpleworkflow.web.app import create_app
    from simpleworkflow.web.identity import Identity
except ModuleNotFoundError as error:
    if error.name not in ("starlette", "uvicorn", "msgspec"):
        raise
    raise MissingExtra("server", error.name) from None

__all__ = ["Identity", "create_app"]
