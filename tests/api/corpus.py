"""What a client may send by mistake or malice, as a table: each case, and the one answer that it must get.

Values carry a canary, which no answer may repeat. `{session}` and `{turn}` stand for a session at rest and its ended turn.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.api.raw import chunked, request

CANARY = "canaryvalue"
DIGITS = "9" * 5_000
FULL_WIDTH = quote("１２")
LIST, TURNS, EVENTS, MESSAGES = "/v1/sessions", "/v1/sessions/{session}/turns", "/v1/sessions/{session}/events", (
    "/v1/sessions/{session}/messages"
)  # fmt: skip
CONFIG = "/v1/realm/config"
PAGE = b"accept: application/json"
MEBIBYTE = 2**20
POST = b"POST /v1/sessions HTTP/1.1\r\nhost: localhost\r\n"


@dataclass(frozen=True, slots=True)
class Case:
    """One bad request as bytes, and the status and code that it must be refused with."""

    name: str
    pieces: tuple[bytes, ...]
    status: int
    code: str


def cases() -> list[Case]:
    """Return the whole table."""
    return [
        *_bytes(),
        *_heads(),
        *_browsers(),
        *_bodies(),
        *_envelopes(),
        *_fields(),
        *_configs(),
        *_queries(),
        *_cursors(),
        *_paths(),
        *_methods(),
    ]


def _bytes() -> Iterator[Case]:
    """What is no HTTP."""
    for name, data in {
        "a line that is no request": b"hello " + CANARY.encode() + b"\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        "a method that does not exist": b"BREW /v1/sessions HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "an unknown version": b"GET /livez HTTP/7.3\r\nhost: localhost\r\n\r\n",
        "NUL in the path": b"GET /v1/sessions/\0 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "NUL in a header": b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-a: \0\r\n\r\n",
        "a header without a colon": b"GET /livez HTTP/1.1\r\nhost: localhost\r\n" + CANARY.encode() + b"\r\n\r\n",
        "a space before the colon": b"GET /livez HTTP/1.1\r\nhost : a\r\n\r\n",
        "a length that is no number": POST + b"content-length: one\r\n\r\n",
        "a negative length": POST + b"content-length: -1\r\n\r\n",
        "a length of 5,000 digits": POST + b"content-length: %b\r\n\r\n" % DIGITS.encode(),
        "two lengths": POST + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        "a length and chunks": (POST + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        "a request for a tunnel": b"CONNECT 169.254.169.254:80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        "HTTP/0.9": b"GET /livez\r\n\r\n",
        "a method in small letters": b"get /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "a header that is folded": b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-a: b\r\n c\r\n\r\n",
        "chunks within something else": POST + b"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "no host": b"GET /livez HTTP/1.1\r\n\r\n",
        "two hosts": b"GET /livez HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
        "a chunk of no size": POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    }.items():
        yield Case(name, (data,), 400, "MALFORMED_REQUEST")


def _heads() -> Iterator[Case]:
    long = CANARY.encode() * (MEBIBYTE // len(CANARY))
    yield Case("a header of 1 MB", (request("GET", LIST, b"", b"x-long: " + long),), 431, "HEADERS_TOO_LARGE")
    many = [b"x-%d: %b" % (number, CANARY.encode()) for number in range(3_000)]
    yield Case("3,000 headers", (request("GET", LIST, b"", *many),), 431, "HEADERS_TOO_LARGE")
    yield Case("a path of 40 kB", (request("GET", f"{LIST}/{'a' * 40_000}"),), 431, "HEADERS_TOO_LARGE")
    yield Case("a query of 40 kB", (request("GET", f"{LIST}?q={'a' * 40_000}"),), 431, "HEADERS_TOO_LARGE")
    yield Case("a path of 1 MB", (request("GET", f"{LIST}/{'a' * MEBIBYTE}"),), 431, "HEADERS_TOO_LARGE")
    for name, line in {
        "an empty key": b"idempotency-key:",
        "a key that is not ASCII": b"idempotency-key: caf\xc3\xa9" + CANARY.encode(),
        "a key of a byte that is no UTF-8": b"idempotency-key: \xff",
        "a key with a space": b"idempotency-key: a b",
        "a key of 256 characters": b"idempotency-key: " + b"k" * 256,
        "two keys": b"idempotency-key: one\r\nidempotency-key: two",
        "wait that is no number": b"prefer: wait=" + CANARY.encode(),
        "wait below zero": b"prefer: wait=-1",
        "wait with a fraction": b"prefer: wait=1.5",
        "wait in full-width digits": b"prefer: wait=\xef\xbc\x91",
        "wait of 5,000 digits": b"prefer: wait=" + DIGITS.encode(),
    }.items():
        yield Case(name, (request("POST", LIST, b"{}", line),), 422, "INVALID_REQUEST")


def _browsers() -> Iterator[Case]:
    """What a browser sends for a page of elsewhere."""
    for host in ("evil.example", "localhost.evil.example", "0.0.0.0:8000", "10.0.0.1", "localhost@evil.example", CANARY, "a b"):
        sent = f"GET /livez HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
        yield Case(f"host {host}", (sent,), 421, "HOST_NOT_ALLOWED")
    for origin in ("https://evil.example", "null", "http://localhost:1", "http://localhost.evil.example", CANARY):
        for method, path in (("POST", LIST), ("PATCH", "/v1/sessions/{session}"), ("DELETE", "/v1/sessions/{session}")):
            sent = request(method, path, b"{}", f"origin: {origin}".encode())
            yield Case(f"{method} from a page of {origin}", (sent,), 403, "ORIGIN_NOT_ALLOWED")


def _bodies() -> Iterator[Case]:
    """What is no strict JSON, and what is no JSON at all."""
    canary = json.dumps({"title": CANARY})
    for name, body in {
        "not JSON": CANARY.encode(),
        "white space alone": b" \n ",
        "cut JSON": canary[:-1].encode(),
        "two JSON texts": (canary * 2).encode(),
        "single quotes": b"{'title': 'a'}",
        "a comment": b'{"title": "a"} // ' + CANARY.encode(),
        "a trailing comma": b'{"title": "a",}',
        "a raw NUL in a string": b'{"title": "\0"}',
        "a raw line feed in a string": b'{"title": "a\nb"}',
        "a byte order mark": b"\xef\xbb\xbf{}",
        "UTF-16": canary.encode("utf-16"),
        "UTF-16 without a mark": canary.encode("utf-16-le"),
        "UTF-32": canary.encode("utf-32"),
        "invalid UTF-8": b'{"title": "\xff"}',
        "overlong UTF-8": b'{"title": "\xc0\x80"}',
        "a surrogate in UTF-8": b'{"title": "\xed\xa0\x80"}',
        "a lone surrogate": b'{"title": "\\ud800"}',
        "a lone low surrogate": b'{"title": "\\udc00' + CANARY.encode() + b'"}',
        "a lone surrogate in a key": b'{"\\ud800": 1}',
        "a lone surrogate in a label": b'{"labels": {"a": "\\udfff"}}',
        "a key twice": b'{"title": "a", "title": "b"}',
        "a key twice, once escaped": b'{"title": "a", "\\u0074itle": "b"}',
        "a key twice, deep": b'{"labels": {"a": "1", "a": "2"}}',
        "NaN": b'{"max_tokens": NaN}',
        "Infinity": b'{"max_tokens": Infinity}',
        "-Infinity": b'{"max_tokens": -Infinity}',
        "1e999": b'{"max_tokens": 1e999}',
        "-1e999": b'{"max_tokens": -1e999}',
        "2^63": b'{"max_tokens": 9223372036854775808}',
        "an integer of 5,000 digits": b'{"max_tokens": %b}' % DIGITS.encode(),
        "a leading zero": b'{"max_tokens": 01}',
        "a leading plus": b'{"max_tokens": +1}',
        "65 deep": nested(65),
        "65 deep in lists": b'{"provider_params": ' + b"[" * 64 + b"]" * 64 + b"}",
        "100,000 deep": b"[" * 100_000,
        "100,000 deep behind a string": b'["\\"",' + b'{"a":' * 100_000,
    }.items():
        yield Case(name, (request("POST", LIST, body),), 400, "MALFORMED_JSON")


def _envelopes() -> Iterator[Case]:
    """Bodies too large, of the wrong type, or packed."""
    big = b'{"title": "' + CANARY.encode() * (5 * MEBIBYTE // len(CANARY)) + b'"}'
    yield Case("5 MB", (request("POST", LIST, big),), 413, "BODY_TOO_LARGE")
    pieces = [big[start : start + 65_536] for start in range(0, len(big), 65_536)]
    yield Case("5 MB in chunks", tuple(chunked("POST", LIST, pieces)), 413, "BODY_TOO_LARGE")
    head = POST + b"content-type: application/json\r\ncontent-length: 999999999999\r\n\r\n"
    yield Case("a length of 1 TB, before the body", (head,), 413, "BODY_TOO_LARGE")
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", "application/jsonp",
                 "application/problem+json", "application/json; charset=utf-16", "application/json; charset=latin1", "*/*",
                 CANARY, None):  # fmt: skip
        yield Case(f"content type {kind}", (request("POST", LIST, b"{}", kind=kind),), 415, "UNSUPPORTED_MEDIA_TYPE")
    packed = request("POST", LIST, b"{}", b"content-encoding: gzip")
    yield Case("a packed body", (packed,), 415, "UNSUPPORTED_MEDIA_TYPE")


def _fields() -> Iterator[Case]:
    """Well-formed JSON that breaks the schema."""
    wholes: dict[str, Any] = {"null": None, "a list": [], "a number": 5, "a string": CANARY, "true": True}
    for name, value in wholes.items():
        yield _posted(f"a body that is {name}", LIST, value)
    fields: dict[str, list[Any]] = {
        "prompt": [5, True, "", [], {}, [CANARY], [{"type": "text"}], [{"type": "text", "text": 5}], [{"type": CANARY}],
                   [{"type": "text", "text": "a", "more": CANARY}], [{"text": "a"}]],
        "initial_turn": ["later", True, "run_immediately"],
        "model": ["", 5, "a b", "a\nb", "\0", "m" * 201, [CANARY], "no-such-vendor"],
        "provider": [CANARY, 5, ""],
        "system_prompt": [5, [], {"a": CANARY}],
        "max_tokens": ["5", True, 0, -1, 1.0, 0.5, 1e300],
        "title": [5, True, "t" * 201, [CANARY]],
        "labels": [[], "a:b", {"a": 1}, {"a": True}, {"a": None}, {"a": [CANARY]}, {"": "a"},
                   {str(number): "a" for number in range(33)}],
        "provider_params": [5, [], CANARY, {"no_such_parameter": CANARY}, {"tokens": "5"}, {"tokens": -1}, {"tokens": True}],
        "tools": [5, [], {"builtins": 1}, {"builtins": "true"}, {"no_such_tool": True}],
        "no_such_field": [1, None],
        "Prompt": ["a"],
        "n" * 5_000: [CANARY],
        "a\0b": [1],
    }  # fmt: skip
    for member, wrong in fields.items():
        for number, value in enumerate(wrong):
            yield _posted(f"{member[:20]!r} wrong in way {number}", LIST, {member: value})
    for name, body in {
        "a turn without a prompt": {},
        "a turn with an empty prompt": {"prompt": ""},
        "a turn with an unknown on_busy": {"prompt": "a", "on_busy": CANARY},
        "a turn with max_tokens 0": {"prompt": "a", "max_tokens": 0},
        "a turn with a model of no vendor": {"prompt": "a", "model": CANARY},
        "a turn with an unknown field": {"prompt": "a", "title": CANARY},
    }.items():
        yield _posted(name, TURNS, body)
    stops: list[Any] = [{"turn_id": 5}, {"mode": CANARY}, {"reason": "r" * 1_001}, {"reason": 5}, {"more": 1}, []]
    for number, body in enumerate(stops):
        yield _posted(f"an interrupt wrong in way {number}", "/v1/sessions/{session}/interrupt", body)
    for act in ("archive", "unarchive"):
        yield _posted(f"{act} with a field", f"/v1/sessions/{{session}}/{act}", {"reason": CANARY})


def _configs() -> Iterator[Case]:
    """What is no configuration of a realm."""
    configs: list[Any] = [
        {}, [], {"config": None}, {"config": []}, {"config": CANARY}, {"config": {}, "more": 1}, {"config": {"": 1}},
        {"config": {"no_such_key": None}}, {"config": {"no_such_key": CANARY}}, {"config": {"default_model": "a b"}},
        {"config": {"default_model": "no-such-vendor"}}, {"config": {"default_provider": CANARY}},
        {"config": {"max_tokens": 0}}, {"config": {"max_tokens": "5"}}, {"config": {"builtins": 1}},
        {"config": {"provider_params": [CANARY]}}, {"config": {"provider_params": {"no_such_parameter": CANARY}}},
        {"config": {}, "expected_generation": "0"}, {"config": {}, "expected_generation": -1},
        {"config": {}, "expected_generation": True},
    ]  # fmt: skip
    for number, body in enumerate(configs):
        for method in ("PUT", "PATCH"):
            sent = request(method, CONFIG, json.dumps(body).encode())
            yield Case(f"{method} of a configuration wrong in way {number}", (sent,), 422, "INVALID_REQUEST")


def _queries() -> Iterator[Case]:
    numbers = ("9223372036854775808", "-1", "1.0", "1e3", "%2B5", "+5", "%205", "5%20", FULL_WIDTH, "%D9%A1", CANARY, "0x10",
               "1_0", "NaN", "true", "%00", "5%00", DIGITS)  # fmt: skip
    for path in (LIST, TURNS, MESSAGES, EVENTS):
        for number in (*numbers, "1001" if path == EVENTS else "201"):
            yield _got(f"{path}: limit={number[:20]}", f"{path}?limit={number}")
    for number in numbers:
        yield _got(f"offset={number[:20]}", f"{LIST}?offset={number}")
    for query in ("order=updated_at", f"order={CANARY}", "order=-UPDATED_AT", "status=live", "status=Idle", "status=%00",
                  "archived=1", "archived=True", "label=team", "label=%00", f"more={CANARY}", f"{'n' * 5_000}=1", "%00=1",
                  "limit=1&limit=2", "order=-created_at&order=-created_at", "q=a&q=b", "Limit=5", "limit[]=5",
                  "q=%FF", "q=%C0%80", "q=%ED%A0%80", "label=a:%FF", "%FF=1"):  # fmt: skip
        yield _got(f"list: {query[:40]}", f"{LIST}?{query}")
    yield Case("list: a raw byte that is no UTF-8", (request("GET", LIST + "?q=\udcff"),), 400, "MALFORMED_REQUEST")
    yield Case("list: raw UTF-8", (request("GET", LIST + "?q=é"),), 400, "MALFORMED_REQUEST")
    for query in ("types=no_such_type", "types=text_delta,", "types=,", "types=TEXT_DELTA", "types=%00",
                  "types=text_delta&types=x",
                  f"turn_id={CANARY}", "turn_id=%00", "scope=%00", "scope=a%20b", f"scope={quote('é')}", "follow=maybe",
                  "follow=False", "follow=0", f"more={CANARY}", "types=%FF"):  # fmt: skip
        yield _got(f"events: {query[:40]}", f"{EVENTS}?{query}")
    yield Case("events: limit of a stream", (request("GET", f"{EVENTS}?limit=5"),), 422, "INVALID_REQUEST")
    yield _got("turns: unknown status", f"{TURNS}?status={CANARY}")
    yield _got("messages: unknown parameter", f"{MESSAGES}?order=-created_at")
    for path in ("/v1/sessions/{session}", "/v1/sessions/{session}/turns/{turn}", "/v1/capabilities", CONFIG):
        yield _got(f"{path}: unknown parameter", f"{path}?more={CANARY}")


def _cursors() -> Iterator[Case]:
    forms = (CANARY, "1e3", "%2B5", "+5", "-1", "1.0", "0x10", "1_0", "%205", FULL_WIDTH, "%00", "1%00", "1%0A", "9" * 19,
             "9223372036854775808", DIGITS)  # fmt: skip
    for path, name in ((EVENTS, "after"), (f"{TURNS}/{{turn}}/events", "after"), (MESSAGES, "after"), (TURNS, "cursor")):
        for form in forms:
            yield _got(f"{path}: {name}={form[:20]}", f"{path}?{name}={form}", 400, "INVALID_CURSOR")
    for sent_form in (b"abc", b"1e3", b"+5", b"-1", "１２".encode(), b"\xff", b"1 2", b"9" * 19, DIGITS.encode()):
        line = b"last-event-id: " + sent_form
        sent = request("GET", EVENTS, b"", PAGE, line)
        yield Case(f"Last-Event-ID {sent_form[:20]!r}", (sent,), 400, "INVALID_CURSOR")
    for name, cursor in {
        "word": CANARY,
        "digits": DIGITS,
        "text that is not ASCII": quote("é"),
        "NUL": "%00",
        "base64 of something else": "eHg=",
        "base64 of bytes": "_____w==",
        "full-width digits": _list_cursor("-updated_at,１２,00000000-0000-7000-8000-000000000000"),
        "digits with a bar": _list_cursor("-updated_at,1_2,00000000-0000-7000-8000-000000000000"),
        "a time beyond all": _list_cursor(f"-updated_at,{DIGITS},00000000-0000-7000-8000-000000000000"),
        "a time of year 9999": _list_cursor(f"-updated_at,{'9' * 18},00000000-0000-7000-8000-000000000000"),
        "an id that is none": _list_cursor(f"-updated_at,12,{CANARY}"),
        "a list in another order": _list_cursor("-created_at,12,00000000-0000-7000-8000-000000000000"),
    }.items():
        yield _got(f"list cursor: {name}", f"{LIST}?cursor={cursor}", 400, "INVALID_CURSOR")


def _paths() -> Iterator[Case]:
    for name in ("%00", "%FF", "a%2Fb", "..", "%2e%2e", "1", "A" * 5_000, quote("１"), CANARY, "%ED%A0%80", "%F0%9F%98%80",
                 "00000000-0000-7000-8000-000000000000", "00000000-0000-7000-8000-00000000000%0A",
                 "00000000-0000-7000-8000-00000000000G", "{upper}", "{session}%00"):  # fmt: skip
        if name not in {"a%2Fb", "..", "%2e%2e"}:
            yield _got(f"session {name[:40]}", f"/v1/sessions/{name}", 404, "SESSION_NOT_FOUND")
            yield _got(f"turn {name[:40]}", f"{TURNS}/{name}", 404, "TURN_NOT_FOUND")
            yield _got(f"turns of session {name[:40]}", f"/v1/sessions/{name}/turns", 404, "SESSION_NOT_FOUND")
            yield _got(f"events of turn {name[:40]}", f"{TURNS}/{name}/events", 404, "TURN_NOT_FOUND")
    for path in ("/", "/v1", "/v1/", "/v1/sessions/", "/v1/sessions/{session}/", "/v1/sessions/{session}/turns/",
                 "//v1/sessions", "/v1//sessions",
                 "/V1/sessions", "/v2/sessions", f"/{CANARY}", "/%00", "/%FF", "/v1/sessions/a%2Fb/c/d",
                 "/redoc", "/docs/", "/v1/sessions/../../etc/passwd", "/livez/"):  # fmt: skip
        yield _got(f"path {path}", path, 404, "NOT_FOUND")


def _methods() -> Iterator[Case]:
    for path, wrong in {
        LIST: ("PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"),
        "/v1/sessions/{session}": ("PUT", "POST", "OPTIONS"),
        TURNS: ("PUT", "PATCH", "DELETE", "OPTIONS"),
        f"{TURNS}/{{turn}}": ("PUT", "POST", "OPTIONS"),
        EVENTS: ("PUT", "POST", "PATCH", "DELETE", "OPTIONS"),
        MESSAGES: ("PUT", "POST", "PATCH", "DELETE", "OPTIONS"),
        "/v1/sessions/{session}/archive": ("GET", "PUT", "DELETE", "OPTIONS"),
        "/v1/sessions/{session}/interrupt": ("GET", "PUT", "DELETE", "OPTIONS"),
        "/livez": ("POST", "OPTIONS"),
        "/readyz": ("POST", "OPTIONS"),
        "/metrics": ("POST", "OPTIONS"),
        "/v1/capabilities": ("POST", "OPTIONS"),
        "/v1/realm/config": ("POST", "DELETE", "OPTIONS"),
        "/openapi.json": ("POST", "OPTIONS"),
    }.items():
        for method in wrong:
            yield Case(f"{method} {path}", (request(method, path),), 405, "METHOD_NOT_ALLOWED")


def nested(depth: int) -> bytes:
    """Write an object that is so deep."""
    return b'{"provider_params": ' + b'{"a":' * (depth - 1) + b"1" + b"}" * depth


def _posted(name: str, path: str, value: Any) -> Case:
    return Case(name, (request("POST", path, json.dumps(value).encode()),), 422, "INVALID_REQUEST")


def _got(name: str, target: str, status: int = 422, code: str = "INVALID_REQUEST") -> Case:
    return Case(name, (request("GET", target, b"", PAGE),), status, code)


def _list_cursor(text: str) -> str:
    import base64

    return base64.urlsafe_b64encode(text.encode()).decode()
