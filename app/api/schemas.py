"""The wire's objects: what requests may say, and what answers look like.

Requests are strict. A field of the contract whose feature this version does not have is known here, so that it is refused with
501 instead of being ignored.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.copies.document import SessionExport
from app.errors import CapabilityUnavailable
from app.providers.registry import Name

Label: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]
ModelName: TypeAlias = Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,200}$")]
Title: TypeAlias = Annotated[str, Field(max_length=200)]
Later: TypeAlias = Any
"""A field whose feature this version does not have."""

MOST_LABELS = 32
WHOLE = frozenset({"output_schema"})
"""Fields whose empty object is no way of asking for nothing."""


def _asks_for_something(name: str, value: Any) -> bool:
    nothing: tuple[Any, ...] = (None,) if name in WHOLE else (None, [], {})
    return value is not False and value not in nothing


class Strict(BaseModel):
    """A request object: unknown fields are refused, nothing is coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    later: ClassVar[tuple[str, ...]] = ()
    """Fields that are refused with 501 while they ask for anything."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_later(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for name in cls.later:
                if _asks_for_something(name, value.get(name)):
                    raise CapabilityUnavailable(f"This server does not have {name} yet.", field=name)
        return value


class TextBlock(Strict):
    """Words."""

    type: Literal["text"]
    text: str = Field(min_length=1)


class ImageBlock(Strict):
    """An image; refused with 501 in this version."""

    model_config = ConfigDict(extra="allow")
    type: Literal["image"]

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("type") == "image":
            raise CapabilityUnavailable("This server does not take images yet.", field="prompt")
        return value


Blocks: TypeAlias = Annotated[list[Annotated[TextBlock | ImageBlock, Field(discriminator="type")]], Field(min_length=1)]
Prompt: TypeAlias = Annotated[str, Field(min_length=1)] | Blocks


def prompt_text(prompt: str | list[Any]) -> str:
    """Write a prompt as the JSON text that is kept."""
    value = prompt if isinstance(prompt, str) else [block.model_dump() for block in prompt]
    return orjson.dumps(value).decode()


def kept_blocks(prompt: str | list[Any]) -> str:
    """Write a prompt as the JSON text of blocks."""
    return prompt_text([TextBlock(type="text", text=prompt)] if isinstance(prompt, str) else prompt)


class Tools(Strict):
    """Which categories of tools a session's model is offered; null is the server's default."""

    later = ("shell", "subagents", "memory", "mob")
    builtins: bool | None = None
    shell: bool | None = None
    subagents: bool | None = None
    memory: bool | None = None
    mob: bool | None = None


class _Labels(Strict):
    @model_validator(mode="after")
    def _few_labels(self) -> Any:
        if len(getattr(self, "labels", None) or {}) > MOST_LABELS:
            raise ValueError(f"at most {MOST_LABELS} labels")
        return self


class CreateSession(_Labels):
    """A new session, and its first turn unless that is deferred."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "What time is it in Paris?", "model": "scripted", "labels": {"team": "web"}},
                {"initial_turn": "defer", "system_prompt": "Answer in one sentence.", "title": "Support"},
            ]
        }
    )
    later = (
        "output_schema", "budget_limits", "external_tools", "approval_tools", "preload_skills", "skill_references",
        "hooks_override", "host_mode", "comms_name", "peer_meta", "silent_comms_intents", "max_inline_peer_notifications",
        "structured_output_retries",
    )  # fmt: skip

    prompt: Prompt | None = None
    initial_turn: Literal["run_immediately", "defer"] | None = None
    model: ModelName | None = None
    provider: Name | None = None
    system_prompt: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    title: Title | None = None
    labels: dict[Label, Annotated[str, Field(max_length=1000)]] | None = None
    provider_params: dict[str, Any] | None = None
    tools: Tools | None = None
    output_schema: Later = None
    structured_output_retries: Later = None
    budget_limits: Later = None
    external_tools: Later = None
    approval_tools: Later = None
    preload_skills: Later = None
    skill_references: Later = None
    hooks_override: Later = None
    host_mode: Later = None
    comms_name: Later = None
    peer_meta: Later = None
    silent_comms_intents: Later = None
    max_inline_peer_notifications: Later = None
    resume_session: SessionExport | None = None
    ephemeral: bool | None = None

    @model_validator(mode="after")
    def _has_prompt_unless_deferred(self) -> "CreateSession":
        if self.initial_turn == "run_immediately" and self.prompt is None:
            raise ValueError("a prompt is required unless initial_turn is defer")
        return self

    @property
    def is_deferred(self) -> bool:
        """Whether no turn is to run yet."""
        return self.prompt is None or self.initial_turn == "defer"


class ChangeSession(_Labels):
    """A merge patch (RFC 7396) of a session: null removes, absent leaves."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"title": "Invoices", "labels": {"team": None}}]})
    title: Title | None = None
    labels: dict[Label, Annotated[str, Field(max_length=1000)] | None] | None = None
    model: ModelName | None = None
    provider: Name | None = None
    system_prompt: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    provider_params: dict[str, Any] | None = None
    tools: Tools | None = None


class StartTurn(Strict):
    """A prompt for a session; what is given beside it holds for this turn alone."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "And in Tokyo?"}, {"prompt": "Next one.", "on_busy": "queue"}]}
    )
    later = ("skill_references", "output_schema", "budget_limits", "host_mode")

    prompt: Prompt
    on_busy: Literal["reject", "queue", "steer", "interrupt"] | None = None
    model: ModelName | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    skill_references: Later = None
    output_schema: Later = None
    budget_limits: Later = None
    host_mode: Later = None

    @model_validator(mode="after")
    def _refuse_busy_later(self) -> "StartTurn":
        if self.on_busy in {"steer", "interrupt"}:
            raise CapabilityUnavailable(f"This server does not have on_busy: {self.on_busy} yet.", field="on_busy")
        return self


class EditTurn(Strict):
    """Another prompt for a queued turn."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "And in Osaka?"}]})
    prompt: Prompt


class Interrupt(Strict):
    """Which turn to stop, and why; all of it may be left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"reason": "Not needed any more."}]})
    turn_id: str | None = None
    reason: Annotated[str, Field(max_length=1000)] | None = None
    mode: Literal["now", "after_step"] | None = None

    @model_validator(mode="after")
    def _refuse_after_step(self) -> "Interrupt":
        if self.mode == "after_step":
            raise CapabilityUnavailable("This server does not have mode: after_step yet.", field="mode")
        return self


class Fork(Strict):
    """How much of a session to copy; without a turn all that is over."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"through_turn": 2}]})
    through_turn: Annotated[int, Field(ge=1)] | None = None


class Nothing(Strict):
    """A request without fields."""


class UsageView(BaseModel):
    """Tokens as the providers reported them; `input_tokens` is without cached ones."""

    input_tokens: int
    output_tokens: int
    cache_creation_tokens: int
    cache_read_tokens: int


class TurnUsageView(UsageView):
    """A turn's tokens over all its attempts."""

    total_tokens: int


class SessionState(BaseModel):
    """What a session is and does now."""

    session_id: str
    created_at: str
    updated_at: str
    archived_at: str | None
    title: str | None
    labels: Mapping[str, str]
    model: str
    provider: str
    status: Literal["idle", "running", "waiting", "archived"]
    is_active: bool
    current_turn_id: str | None
    queued_turns: int
    message_count: int
    last_assistant_text: str | None
    last_seq: int
    instance_id: str | None
    backend: Literal["postgres"]
    config_generation: int


class Billing(BaseModel):
    """A session's tokens over all its turns."""

    total_tokens: int
    usage: UsageView


class SessionView(BaseModel):
    """A whole session."""

    state: SessionState
    billing: Billing


class SessionSummary(BaseModel):
    """A session as lists show it."""

    session_id: str
    created_at: str
    updated_at: str
    archived_at: str | None
    title: str | None
    labels: Mapping[str, str]
    model: str
    status: Literal["idle", "running", "waiting", "archived"]
    is_active: bool
    message_count: int
    total_tokens: int


class SessionPage(BaseModel):
    """A page of sessions; `next_cursor` is null on the last."""

    sessions: list[SessionSummary]
    next_cursor: str | None


class FailureView(BaseModel):
    """Why a turn failed."""

    code: Literal["AGENT_ERROR"]
    reason: str
    message: str


class TurnView(BaseModel):
    """A whole turn."""

    session_id: str
    turn_id: str
    number: int
    status: Literal["queued", "running", "waiting", "completed", "failed", "interrupted", "cancelled"]
    text: str | None
    steps: int
    tool_calls: int
    attempt: int
    usage: TurnUsageView
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "content_filter", "interrupted"] | None
    structured_output: None
    schema_warnings: list[str]
    skill_diagnostics: None
    pending_tool_calls: list[Any]
    error: FailureView | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    first_seq: int
    last_seq: int


class TurnPage(BaseModel):
    """A page of turns; `next_cursor` is null on the last."""

    turns: list[TurnView]
    next_cursor: str | None


class Created(BaseModel):
    """A new session and its first turn, if one was asked for."""

    session_id: str
    session: SessionView
    turn: TurnView | None


class MessageView(BaseModel):
    """One message of the history."""

    ordinal: int
    role: Literal["system", "user", "assistant", "tool"]
    content: list[dict[str, Any]]
    turn_id: str | None
    stop_reason: str | None = None
    created_at: str


class MessagePage(BaseModel):
    """A page of messages; `next_after` is the last one's ordinal."""

    messages: list[MessageView]
    next_after: int


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:suricate:error:session-busy",
                    "title": "Conflict",
                    "status": 409,
                    "code": "SESSION_BUSY",
                    "detail": "A turn is live. Wait for its end, interrupt it, or send on_busy: queue.",
                }
            ]
        },
    )
    type: str
    title: str
    status: int
    code: str
    detail: str
