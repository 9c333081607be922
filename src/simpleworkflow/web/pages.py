"""The dashboard: the files that are built into ``static``, and the page for every path that it knows."""

from __future__ import annotations

import html
import re
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from simpleworkflow.web.errors import ApiError

__all__ = ["PAGES", "STATIC", "file", "page"]

STATIC = Path(__file__).parent / "static"
# What the dashboard itself reads in the path.
PAGES = (
    "/",
    "/runs",
    "/runs/{id}",
    "/types",
    "/workers",
    "/schedules",
    "/health",
    "/operations",
    "/operations/{id}",
)
_HASHED = re.compile(r".+[-.][A-Za-z0-9_-]{8,}\.[a-z0-9]+")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
_MEDIA = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "ico": "image/x-icon",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "webmanifest": "application/manifest+json",
    "woff2": "font/woff2",
}


def page(request: Request) -> Response:
    """Return the one page of the dashboard; its ``<base>`` names the path under which the application is mounted."""
    try:
        text = (STATIC / "index.html").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ApiError(
            "not_found",
            "the dashboard is not in this installation",
            "the API is at /api/v1, see /openapi.json",
        ) from None
    base = html.escape(request.scope.get("root_path", "").rstrip("/") + "/")
    text = text.replace('<base href="/">', f'<base href="{base}">')
    return HTMLResponse(text, headers={"Cache-Control": "no-cache"})


def file(request: Request) -> Response:
    """Return one file of the dashboard; one whose name says what is in it may be kept for a year."""
    name = request.path_params["name"]
    # Names without a folder only, so that none leads elsewhere.
    if _NAME.fullmatch(name) is None or name == "index.html" or not (STATIC / name).is_file():
        raise ApiError("not_found", f"there is no page {request.url.path[:200]!a}")
    keeps = "public, max-age=31536000, immutable" if _HASHED.fullmatch(name) else "no-cache"
    media = _MEDIA.get(name.rpartition(".")[2], "application/octet-stream")
    return FileResponse(STATIC / name, media_type=media, headers={"Cache-Control": keeps})
