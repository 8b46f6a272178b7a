"""The OpenAPI document: what FastAPI cannot see because bodies, queries and answers here are read and written by hand."""

import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from app.api import access, key_schemas, realm_schemas, schemas, views, webhook_schemas
from app.journal.event import Event
from app.journal.types import EVENTS

_REF = "#/components/schemas/{model}"
_IN_PATH = re.compile(r"\{(\w+)\}")
_PROBLEMS = {
    401: "No credential, or one that is not good.",
    403: "The credential does not allow this.",
    400: "Not strict JSON, or a cursor of the wrong form.",
    404: "No such session or turn.",
    409: "The session's state does not allow it.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "A field or parameter is not valid.",
    429: "Too many requests, or the realm has as much as it may; `Retry-After` says when to come again.",
    501: "This server does not have that capability.",
    503: "The database cannot be reached; try again.",
}
_NAMING: dict[tuple[str, str, str], dict[str, str]] = {
    ("/v1/sessions", "post", "201"): {"session_id": "#/session_id", "turn_id": "#/turn/turn_id"},
    ("/v1/sessions", "get", "200"): {"session_id": "#/sessions/0/session_id"},
    ("/v1/sessions/{session_id}/fork", "post", "201"): {"session_id": "#/session_id"},
    ("/v1/sessions/{session_id}/turns", "post", "200"): {"session_id": "#/session_id", "turn_id": "#/turn_id"},
    ("/v1/sessions/{session_id}/turns", "post", "202"): {"session_id": "#/session_id", "turn_id": "#/turn_id"},
    ("/v1/nodes", "get", "200"): {"instance_id": "#/nodes/0/instance_id"},
}
"""Answers that name what other routes are about, and where in them the names stand."""
_REQUESTS: tuple[type[BaseModel], ...] = (
    schemas.CreateSession,
    schemas.ChangeSession,
    schemas.StartTurn,
    schemas.EditTurn,
    schemas.Interrupt,
    schemas.ToolResults,
    schemas.Decision,
    realm_schemas.PutConfig,
    realm_schemas.PatchConfig,
    schemas.Fork,
    key_schemas.CreateKey,
    key_schemas.RotateKey,
    key_schemas.AskTicket,
    webhook_schemas.CreateWebhook,
    webhook_schemas.ChangeWebhook,
)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors that a route can answer."""
    content = {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}}
    return {status: {"description": _PROBLEMS[status], "content": content} for status in (*statuses, 503)}


def takes(model: type[BaseModel], *headers: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a route's body, and headers that it knows beside the idempotency key."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    body = {"requestBody": {"required": False, "content": {"application/json": {"schema": schema}}}}
    return body | {"parameters": list(headers)} if headers else body


def parameter(place: str, name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Describe one parameter by its schema and, under `description`, its meaning."""
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": schema.get("description", ""),
        "schema": {key: value for key, value in schema.items() if key != "description"},
    }


def query(*others: Mapping[str, Any], **parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a route's query: each name with its schema and, under `description`, its meaning; and other parameters."""
    return {"parameters": [*(parameter("query", name, schema) for name, schema in parameters.items()), *others]}


PREFER = parameter(
    "header",
    "Prefer",
    {
        "type": "string",
        "description": "`respond-async` answers at once, `wait=N` after N seconds at most.",
        "examples": ["wait=10"],
    },
)
LAST_EVENT_ID = parameter(
    "header",
    "Last-Event-ID",
    {"type": "string", "description": "Number to read from behind; wins over `after`.", "examples": ["7"]},
)
_IDEMPOTENCY_KEY = parameter(
    "header",
    "Idempotency-Key",
    {
        "type": "string",
        "pattern": "^[!-~]{1,255}$",
        "description": "The same key and body within 24 hours have one effect and one answer.",
    },
)
_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, or a token of the configured issuer. What it must allow: read, write (with read), "
        "admin (with both), or operator: admin of the realm `default`. Where no credentials are asked for, none is needed.",
    },
    "ticket": {"type": "apiKey", "in": "query", "name": "ticket", "description": "A stream ticket of the session."},
}


def stream(description: str) -> dict[str, Any]:
    """Describe an answer that is a page of events or a stream of them, as the caller accepts."""
    events = {"$ref": _REF.format(model="Event")}
    page = {
        "type": "object",
        "required": ["events", "next_after", "last_seq"],
        "properties": {
            "events": {"type": "array", "items": events},
            "next_after": {"type": "integer"},
            "last_seq": {"type": "integer"},
        },
    }
    content = {"text/event-stream": {"schema": {"type": "string"}}, "application/json": {"schema": page}}
    return {"description": description, "content": content}


def install(app: FastAPI) -> None:
    """Make the app's OpenAPI document complete; it is built at the first request for it."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            )
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign] # FastAPI's documented way to extend it


def event_schemas() -> dict[str, Any]:
    """Return the JSON Schema of every event's envelope, by type."""
    return {name: _envelope(name, event) for name, event in EVENTS.items()}


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {}).setdefault("schemas", {})
    _, requests = models_json_schema([(model, "validation") for model in _REQUESTS], ref_template=_REF)
    components |= requests.get("$defs", {})
    events = event_schemas()
    components |= {_event_name(name): schema for name, schema in events.items()}
    components["Event"] = {
        "oneOf": [{"$ref": _REF.format(model=_event_name(name))} for name in events],
        "discriminator": {
            "propertyName": "type",
            "mapping": {name: _REF.format(model=_event_name(name)) for name in events},
        },
    }
    document["components"]["securitySchemes"] = _SCHEMES
    components["Problem"] = views.Problem.model_json_schema(ref_template=_REF)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            _complete_parameters(path, method, operation)
            _complete_security(path, method.upper(), operation)
    _link(document["paths"])
    return document


def _complete_security(path: str, method: str, operation: dict[str, Any]) -> None:
    """Say what a credential must allow; what needs none says so with an empty list."""
    need = access.needed(path, method)
    operation["security"] = [] if need == "nothing" else [{"bearer": [need]}]
    if need == "nothing":
        return
    if access.takes_ticket(path, method):
        operation["security"].append({"ticket": []})
    operation["responses"] = {str(status): told for status, told in problems(401, 403, 429).items()} | operation["responses"]


def _link(paths: Mapping[str, Mapping[str, Any]]) -> None:
    """Tell from each answer that names something which routes can be asked about that."""
    for (path, method, status), places in _NAMING.items():
        paths[path][method]["responses"][status]["links"] = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {name: f"$response.body{places[name]}" for name in _IN_PATH.findall(target)},
            }
            for target, methods in paths.items()
            if "{" in target and places.keys() >= {*_IN_PATH.findall(target)}
            for operation in methods.values()
        }


def _complete_parameters(path: str, method: str, operation: dict[str, Any]) -> None:
    known = operation.get("parameters", [])
    names = {one["name"] for one in known}
    missing = [parameter("path", name, {"type": "string"}) for name in _IN_PATH.findall(path) if name not in names]
    if method == "post":
        missing.append(_IDEMPOTENCY_KEY)
    if missing:
        operation["parameters"] = [*missing, *known]


def _event_name(name: str) -> str:
    return "Event" + "".join(part.title() for part in name.split("_"))


def _envelope(name: str, event: type[Event]) -> dict[str, Any]:
    own = TypeAdapter(event).json_schema(ref_template=_REF)
    definitions = own.pop("$defs", {})
    properties, required = own.get("properties", {}), own.get("required", [])
    if name == "session_updated":
        properties, required = {}, []
    omitted = {"turn_interrupted": {"note"}, "tool_call_delta": {"name"}}.get(name, set())
    turn_id: dict[str, Any] = {"type": "null"} if event.is_of_session else {"type": "string", "format": "uuid"}
    if name.startswith("compaction_"):  # a caller may ask for it between turns
        turn_id["type"] = ["string", "null"]
    return {
        "type": "object",
        "description": " ".join((event.__doc__ or "").split()),
        "required": [
            "seq",
            "session_id",
            "turn_id",
            "type",
            "at",
            "scope_id",
            *(r for r in required if r not in omitted),
        ],
        "properties": {
            "seq": {"type": "integer", "minimum": 1},
            "session_id": {"type": "string", "format": "uuid"},
            "turn_id": turn_id,
            "type": {"const": name, "type": "string"},
            "at": {"type": "string", "format": "date-time"},
            "scope_id": {"type": "string"},
            **_inlined(properties, definitions),
        },
    }


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """Put definitions where they are referred to; events share none with the rest of the document."""
    if isinstance(schema, dict):
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        if name in definitions:
            return _inlined(definitions[name], definitions)
        return {key: _inlined(value, definitions) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    return schema
