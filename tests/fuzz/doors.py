"""What is fed to the doors' readers: JSON, queries, cursors. Each takes any bytes, and raises where a property is broken."""

import json
from contextlib import suppress
from typing import Any, get_args

import orjson
from starlette.requests import Request

from app import catalog
from app.api import dependencies, strict_json
from app.api.dependencies import Query
from app.errors import InvalidCursor, InvalidRequest, MalformedJson


def json_texts(data: bytes) -> None:
    """What the strict door takes, every JSON reader takes, and it can be written and read again as it was."""
    try:
        value = strict_json.parse(data)
    except MalformedJson:
        return
    assert value == json.loads(data)
    assert value == orjson.loads(orjson.dumps(value))
    assert _depth(value) <= strict_json.MOST_DEPTH


def queries(data: bytes) -> None:
    """A query is read or refused, and what is read is text."""
    request = Request({"type": "http", "query_string": data, "headers": []})
    with suppress(InvalidRequest, InvalidCursor):
        query = Query(request, "limit", "q", "label", "after", repeatable=frozenset({"label"}))
        for text in [query.text("q") or "", *query.texts("label")]:
            text.encode()
        assert 0 <= query.integer("limit", 50, most=200) <= 200
        assert 0 <= query.cursor("after") < 10**18


def event_cursors(data: bytes) -> None:
    """A cursor of an event is up to 18 decimal digits, and nothing else is one."""
    text = data.decode("utf-8", "replace")
    is_one = 1 <= len(text) <= 18 and set(text) <= set("0123456789")
    try:
        number = dependencies.read_cursor(text)
    except InvalidCursor:
        assert not is_one
    else:
        assert is_one
        assert number == int(text)


def list_cursors(data: bytes) -> None:
    """A list's cursor that is taken is one that the list would write."""
    text = data.decode("utf-8", "replace")
    for order in get_args(catalog.Order):
        with suppress(InvalidCursor):
            moment, session_id = catalog.read_cursor(text, order)
            again = catalog._cursor(order, moment, session_id)
            assert catalog.read_cursor(again, order) == (moment, session_id)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0
