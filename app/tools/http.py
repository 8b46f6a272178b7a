"""HTTP tools: a name, a schema and an endpoint of the server's configuration.

A call is one POST of `{"tool_call_id", "name", "args"}`; the body of a 2xx answer, text or JSON, is what the model reads. The
request is never repeated here: whether a tool may run twice is what its configuration says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from app import redaction
from app.outbound.door import Answer, Door, OutboundError
from app.providers.base import ToolSpec
from app.tools.base import ToolError, call_id

MOST_EXPLANATION: Final = 1_000  # characters of a refusal's body that the model reads


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a tool's calls go.

    Args:
        headers: sent with every call, e.g. `Authorization`; never shown.
        timeout_seconds: for a whole call.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_seconds: float = 30.0


class HttpTool:
    """A tool behind an endpoint."""

    def __init__(self, spec: ToolSpec, endpoint: Endpoint, door: Door, *, is_idempotent: bool = False) -> None:
        self._spec = spec
        self._endpoint = endpoint
        self._door = door
        self._is_idempotent = is_idempotent

    @property
    def spec(self) -> ToolSpec:
        """What the model is told."""
        return self._spec

    @property
    def is_idempotent(self) -> bool:
        """Whether the configuration says that a call may be made twice."""
        return self._is_idempotent

    async def run(self, args: Mapping[str, Any]) -> str:
        """Post the call and return the answer's body.

        Raises:
            ToolError: there was no answer, or not a 2xx one.
        """
        try:
            answer = await self._door.request(
                "POST",
                self._endpoint.url,
                content=self._body(args),
                headers={**self._endpoint.headers, "content-type": "application/json", "accept": "application/json, text/*"},
                timeout_seconds=self._endpoint.timeout_seconds,
            )
        except OutboundError as error:
            raise ToolError(f"The tool could not be reached: {error}") from error
        return _content(answer)

    def _body(self, args: Mapping[str, Any]) -> bytes:
        call = {"tool_call_id": call_id(), "name": self._spec.name, "args": dict(args)}
        try:
            return orjson.dumps({name: value for name, value in call.items() if value is not None})
        except orjson.JSONEncodeError as error:
            raise ToolError("The arguments cannot be written as JSON: they hold broken text or too large a number.") from error


def _content(answer: Answer) -> str:
    match answer.status // 100:
        case 2 if _is_readable(answer):
            return answer.text
        case 2:
            raise ToolError("The tool answered with something that is neither text nor JSON.")
        case 3:
            raise ToolError(f"The tool's endpoint answered {answer.status}, a redirect, which is not followed.")
        case 4 if _is_readable(answer) and answer.body:
            words = redaction.redacted(answer.text)[:MOST_EXPLANATION]  # in this order: half a secret is not known as one
            raise ToolError(f"The tool refused the call ({answer.status}): {words}")
        case _:
            raise ToolError(f"The tool's endpoint failed with status {answer.status}.")


def _is_readable(answer: Answer) -> bool:
    kind = answer.content_type
    return not answer.body or kind.startswith("text/") or kind == "application/json" or kind.endswith("+json")
