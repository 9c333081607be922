"""``/openapi.json``: the routes and their structs, described."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_origin

import msgspec

from simpleworkflow.web.bodies import ErrorAnswer
from simpleworkflow.web.routes import Route

__all__ = ["describe"]

_REF = "#/components/schemas/{name}"
_SAID = {
    200: "Done",
    201: "Recorded",
    202: "Accepted",
    400: "The request cannot be understood",
    401: "No key, or one that is unknown",
    403: "The role may not do that",
    404: "There is none",
    409: "It cannot be changed so",
    413: "The body is too large",
    415: "The body is not said to be JSON",
    500: "A bug; the server's log tells more",
    503: "The database is away, or gives no answer in time",
}


def describe(routes: Iterable[Route], *, prefix: str, version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of ``routes`` under ``prefix``."""
    routes = list(routes)
    structs = {kind for route in routes for kind in _structs(route)} | {ErrorAnswer}
    _, components = msgspec.json.schema_components(
        sorted(structs, key=lambda kind: kind.__name__), ref_template=_REF
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(prefix + route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "simple-workflow",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "wf_key"},
            },
        },
        "security": [{"key": []}, {"cookie": []}, {}],
    }


def _structs(route: Route) -> Iterable[type[Any]]:
    if route.body is not None:
        yield route.body
    yield from (kind for kind in route.answers.values() if kind is not None)


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handle.__name__,
        "summary": route.summary,
        "description": f"For the role {route.role}.",
        "tags": [route.path.split("/")[1]],
        "parameters": [*_path_parameters(route), *_query_parameters(route)],
        "responses": {str(status): _response(route, kind, status) for status, kind in route.answers.items()}
        | {str(status): _error(status) for status in _error_statuses(route)},
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": bool(_required(route.body)),
            "content": {"application/json": {"schema": {"$ref": _REF.format(name=route.body.__name__)}}},
        }
    return operation


def _error_statuses(route: Route) -> list[int]:
    statuses = [400, 401, 403, 500, 503]
    statuses += [404] if route.finds else []
    statuses += [409] if route.conflicts else []
    statuses += [413, 415] if route.body is not None else []
    return sorted(statuses)


def _response(route: Route, kind: type[Any] | None, status: int) -> dict[str, Any]:
    schema = {} if kind is None else {"schema": {"$ref": _REF.format(name=kind.__name__)}}
    return {"description": _SAID[status], "content": {route.media: schema}}


def _error(status: int) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=ErrorAnswer.__name__)}
    return {"description": _SAID[status], "content": {"application/json": {"schema": schema}}}


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    formats: Mapping[str, Any] = {"id": {"type": "string", "format": "uuid"}}
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": formats.get(name, {"type": "string", "minLength": 1}),
        }
        for name in re.findall(r"\{(\w+)\}", route.path)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    _, components = msgspec.json.schema_components([route.query], ref_template=_REF)
    properties: Mapping[str, Any] = components[route.query.__name__].get("properties", {})
    lists = {one.name for one in msgspec.structs.fields(route.query) if get_origin(one.type) is tuple}
    return [
        {"name": name, "in": "query", "required": False, "schema": _unnulled(schema)}
        | ({"style": "form", "explode": True} if name in lists else {})
        for name, schema in properties.items()
    ]


def _unnulled(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a parameter: one that is not said is absent, never null."""
    some = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    return some[0] if len(some) == 1 else {name: value for name, value in schema.items() if name != "default"}


def _required(kind: type[msgspec.Struct]) -> list[str]:
    return [one.name for one in msgspec.structs.fields(kind) if one.required]
