"""The export document, version 1: a session's finished turns and its history as one strict JSON object.

What it does not say: the log's numbers, a live or queued turn, whether the session is archived, and the overrides of turns that
are over. `faults` holds what a schema cannot: how turns and messages belong together.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.messages import StopReason
from app.providers.registry import Name
from app.realms import BudgetLimits

FORMAT: Literal["suricate.session"] = "suricate.session"
VERSION = 1
_OLDEST_YEAR = 1970


def _moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("no such moment") from None
    if moment.year < _OLDEST_YEAR:
        raise ValueError(f"before {_OLDEST_YEAR}")
    return text


Id: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
Time: TypeAlias = Annotated[
    str,
    Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"),
    AfterValidator(_moment),
]
Count: TypeAlias = Annotated[int, Field(ge=0, le=2**31 - 1)]
Tokens: TypeAlias = Annotated[int, Field(ge=0, le=2**53)]
Words: TypeAlias = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ExportedText(_Part):
    """Words."""

    type: Literal["text"]
    text: Words


class ExportedSystemText(_Part):
    """A system prompt, which may be empty."""

    type: Literal["text"]
    text: str


class ExportedImageUrl(_Part):
    """Where a picture is."""

    type: Literal["url"]
    url: Annotated[str, Field(pattern=r"^https://\S+$", max_length=8000)]


class ExportedImageData(_Part):
    """A picture itself."""

    type: Literal["base64"]
    media_type: Annotated[str, Field(pattern=r"^image/[a-z0-9.+-]+$", max_length=100)]
    data: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$")]


class ExportedImage(_Part):
    """A picture for the model."""

    type: Literal["image"]
    source: Annotated[ExportedImageUrl | ExportedImageData, Field(discriminator="type")]


class ExportedReasoning(_Part):
    """What the model thought; `vendor` is what its provider wants back, under the provider's name."""

    type: Literal["reasoning"]
    text: str
    vendor: dict[str, Any] | None = None


class ExportedToolUse(_Part):
    """A call that the model asked for; `vendor` is what its provider wants back with it."""

    type: Literal["tool_use"]
    id: str
    name: str
    args: Any
    vendor: dict[str, Any] | None = None


class ExportedToolResult(_Part):
    """The answer to a call."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str
    is_error: bool


_UserBlock: TypeAlias = Annotated[ExportedText | ExportedImage, Field(discriminator="type")]
_AssistantBlock: TypeAlias = Annotated[ExportedReasoning | ExportedText | ExportedToolUse, Field(discriminator="type")]


class _Message(_Part):
    ordinal: Annotated[int, Field(ge=1, le=2**31 - 1)]
    created_at: Time


class ExportedSystemMessage(_Message):
    """A system prompt, when it came into force; `turn_id` is null for the one that the session began with."""

    role: Literal["system"]
    turn_id: Id | None
    content: Annotated[list[ExportedSystemText], Field(min_length=1)]


class ExportedUserMessage(_Message):
    """What was asked; or a summary, which stands in for the messages up to `sums_up_to` when the model reads on."""

    role: Literal["user"]
    turn_id: Id | None
    content: Annotated[list[_UserBlock], Field(min_length=1)]
    summary: Literal[True] | None = None
    sums_up_to: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None

    @model_validator(mode="after")
    def _is_summary_or_none(self) -> "ExportedUserMessage":
        if (self.summary is None) != (self.sums_up_to is None):
            raise ValueError("a summary says that it is one and how far it reaches")
        return self


class ExportedAssistantMessage(_Message):
    """What the model said and asked for."""

    role: Literal["assistant"]
    turn_id: Id
    content: Annotated[list[_AssistantBlock], Field(min_length=1)]
    stop_reason: StopReason | None

    @property
    def call_ids(self) -> list[str]:
        """The calls that it asks for, in order."""
        return [block.id for block in self.content if isinstance(block, ExportedToolUse)]


class ExportedToolMessage(_Message):
    """The results of the calls in the message before."""

    role: Literal["tool"]
    turn_id: Id
    content: Annotated[list[ExportedToolResult], Field(min_length=1)]


ExportedMessage: TypeAlias = Annotated[
    ExportedSystemMessage | ExportedUserMessage | ExportedAssistantMessage | ExportedToolMessage, Field(discriminator="role")
]


class ExportedUsage(_Part):
    """Tokens as the providers reported them; `input_tokens` is without cached ones."""

    input_tokens: Tokens
    output_tokens: Tokens
    cache_creation_tokens: Tokens
    cache_read_tokens: Tokens


class ExportedFailure(_Part):
    """Why a turn failed."""

    code: Literal["AGENT_ERROR"]
    reason: Annotated[str, Field(pattern=r"^[A-Z_]{1,64}$")]
    message: str


class ExportedTurn(_Part):
    """A turn that is over."""

    turn_id: Id
    number: Annotated[int, Field(ge=1, le=2**31 - 1)]
    status: Literal["completed", "failed", "interrupted", "cancelled"]
    prompt: Words | Annotated[list[_UserBlock], Field(min_length=1)]
    text: str | None
    steps: Count
    tool_calls: Count
    attempt: Count
    usage: ExportedUsage
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "content_filter", "interrupted"] | None
    error: ExportedFailure | None
    structured_output: Any = None
    schema_warnings: list[str] = Field(default_factory=list)
    created_at: Time
    started_at: Time | None
    ended_at: Time

    @model_validator(mode="after")
    def _has_error_if_failed(self) -> "ExportedTurn":
        if (self.error is not None) != (self.status == "failed"):
            raise ValueError("a failed turn has an error, and no other has")
        return self


class ExportedTool(_Part):
    """A tool that the session's callers run."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str
    input_schema: dict[str, Any]
    timeout_seconds: Annotated[float, Field(gt=0, le=604_800, strict=False)] | None = None


class ExportedFallbackModel(_Part):
    """A model to ask where the one before it has failed in all tries."""

    model: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]
    provider: Name


class ExportedOptions(_Part):
    """What the session tells its model."""

    model: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]
    provider: Name
    system_prompt: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    provider_params: dict[str, Any] = Field(default_factory=dict)
    builtins: bool | None = None
    external_tools: list[ExportedTool] = Field(default_factory=list, max_length=128)
    approval_tools: list[str] = Field(default_factory=list, max_length=256)
    budget_limits: BudgetLimits | None = None
    turn_budget: None = None
    output_schema: dict[str, Any] | None = None
    structured_output_retries: Annotated[int, Field(ge=0, le=10)] = 2
    fallback_models: list[ExportedFallbackModel] = Field(default_factory=list, max_length=5)
    hooks_override: dict[str, Any] | None = None


class ExportedSession(_Part):
    """The session without its history; `kept_prompt` is what will open the next turn's user message."""

    session_id: Id
    created_at: Time
    updated_at: Time
    title: Annotated[str, Field(max_length=200)] | None
    labels: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=200)], Annotated[str, Field(max_length=1000)]], Field(max_length=32)
    ]
    options: ExportedOptions
    kept_prompt: Annotated[list[_UserBlock], Field(min_length=1)] | None
    usage: ExportedUsage


class SessionExport(_Part):
    """A session as one document, as `resume_session` takes it."""

    format: Literal["suricate.session"]
    version: Annotated[int, Field(ge=VERSION, le=VERSION)]
    session: ExportedSession
    turns: list[ExportedTurn]
    messages: list[ExportedMessage]


class SessionExportWithEvents(SessionExport):
    """A session as one document; `events` is its log, where it was asked for, to read and not to resume from."""

    events: list[dict[str, Any]] | None = None


def faults(document: SessionExport) -> Iterator[tuple[str, str]]:
    """Tell what is wrong with how a document's turns and messages belong together.

    Returns:
        Pairs of a place in the document and what is wrong there.
    """
    yield from _turn_faults(document.turns)
    turn_ids = {turn.turn_id for turn in document.turns}
    for index, message in enumerate(document.messages):
        if message.ordinal != index + 1:
            yield f"messages.{index}.ordinal", "Ordinals count from 1 without gaps."
        if message.turn_id is not None and message.turn_id not in turn_ids:
            yield f"messages.{index}.turn_id", "Not one of the document's turns."
    yield from _transcript_faults(document.messages)
    yield from _summary_faults(document.messages)


def _turn_faults(turns: Sequence[ExportedTurn]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for index, turn in enumerate(turns):
        if turn.number != index + 1:
            yield f"turns.{index}.number", "Numbers count from 1 without gaps."
        if turn.turn_id in seen:
            yield f"turns.{index}.turn_id", "Two turns have this id."
        seen.add(turn.turn_id)


def _transcript_faults(messages: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Each call has exactly one result, in the next message and in order; the user speaks first."""
    open_ids: list[str] = []
    for index, message in enumerate(messages):
        answered = [block.tool_use_id for block in message.content] if isinstance(message, ExportedToolMessage) else []
        if answered != open_ids:
            yield f"messages.{index}", "Results must answer the calls of the message before, all of them and in order."
        open_ids = message.call_ids if isinstance(message, ExportedAssistantMessage) else []
        if len(set(open_ids)) < len(open_ids):
            yield f"messages.{index}.content", "Two calls have the same id."
    if open_ids:
        yield f"messages.{len(messages) - 1}", "Its calls have no results."
    first = next(((index, message) for index, message in enumerate(messages) if _is_talk(message)), None)
    if first is not None and not isinstance(first[1], ExportedUserMessage):
        yield f"messages.{first[0]}.role", "The first message behind the system's is the user's."


def _summary_faults(messages: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """A summary stands in for messages before it; what the model reads behind it begins where a transcript may."""
    for index, message in enumerate(messages):
        if not isinstance(message, ExportedUserMessage):
            continue
        reach = message.sums_up_to
        if reach is None:
            if message.turn_id is None:
                yield f"messages.{index}.turn_id", "Only a summary may belong to no turn."
        elif reach > index:
            yield f"messages.{index}.sums_up_to", "A summary stands in for messages before it."
        elif isinstance(next(filter(_is_talk, messages[reach:]), None), ExportedToolMessage):
            yield f"messages.{index}.sums_up_to", "A summary does not part calls from their results."


def _is_talk(message: Any) -> bool:
    return not isinstance(message, ExportedSystemMessage) and not (isinstance(message, ExportedUserMessage) and message.summary)


def stored(blocks: Sequence[_Part]) -> str:
    """Write blocks as the JSON text that is stored: `vendor` only where there is any."""
    return orjson.dumps([_without_nothing(block.model_dump()) for block in blocks]).decode()


def _without_nothing(block: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in block.items() if name != "vendor" or value is not None}
