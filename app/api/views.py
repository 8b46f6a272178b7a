"""The wire's answers, as the OpenAPI document has them."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.hooks.base import Capability, Point
from app.providers.models import Ability
from app.providers.registry import Name
from app.turns.desk import OnBusy
from app.usage import Group


class UsageView(BaseModel):
    """Tokens as the providers reported them; `input_tokens` is without cached ones."""

    input_tokens: int
    output_tokens: int
    cache_creation_tokens: int
    cache_read_tokens: int


class TurnUsageView(UsageView):
    """A turn's tokens over all its attempts."""

    total_tokens: int


class UsageSum(BaseModel):
    """What was used together; a name is null where sums are not made by it, and a credential also where none is known."""

    day: str | None
    credential: str | None
    provider: str | None
    model: str | None
    calls: int
    usage: TurnUsageView


class UsageTotal(BaseModel):
    """All that was used."""

    calls: int
    usage: TurnUsageView


class UsageReport(BaseModel):
    """What a realm has used, in the order of the names that sums are made by."""

    first: str = Field(alias="from")
    to: str
    group_by: list[Group]
    sums: list[UsageSum]
    total: UsageTotal


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


class PendingCall(BaseModel):
    """A call that waits for its caller."""

    id: str
    name: str
    args: Any
    kind: Literal["external", "approval"]
    expires_at: str


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
    structured_output: Any
    schema_warnings: list[str]
    skill_diagnostics: None
    pending_tool_calls: list["PendingCall"]
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
    summary: bool | None = None


class MessagePage(BaseModel):
    """A page of messages; `next_after` is the last one's ordinal."""

    messages: list[MessageView]
    next_after: int


class ModelView(BaseModel):
    """A model that sessions may name; null is not known.

    `context_window` counts a call's tokens with its answer. `is_default`: sessions that name no model get this one.
    """

    id: str
    provider: Name
    context_window: int | None
    max_output_tokens: int | None
    abilities: list[Ability] | None
    is_default: bool


class ModelList(BaseModel):
    """The models of this server's providers; those of `open_providers` have names that only their operators know."""

    models: list[ModelView]
    open_providers: list[Name]


class NodeView(BaseModel):
    """A process on the database; null is not known, of one that holds turns and has no row."""

    instance_id: str
    kind: Literal["serve", "worker"] | None
    version: str | None
    host: str | None
    pid: int | None
    status: Literal["ready", "draining", "lost"]
    started_at: str | None
    seen_at: str | None
    lease_age_seconds: float | None
    live_turns: int
    max_live_turns: int | None


class NodeList(BaseModel):
    """All nodes, the oldest first."""

    nodes: list[NodeView]


class HookView(BaseModel):
    """One of the server's hooks; a session may disable those that are not required."""

    id: str
    points: list[Point]
    capability: Capability
    is_required: bool


class ToolCategories(BaseModel):
    """Categories of tools: whether a session that says nothing is offered them. Those that are off here cannot be asked for."""

    builtins: bool
    shell: bool
    subagents: bool
    memory: bool
    mob: bool


class TurnLimits(BaseModel):
    """What bounds a turn, whatever its session says."""

    step_limit: int
    turn_timeout_seconds: float
    turn_output_tokens: int
    tool_timeout_seconds: float
    answer_timeout_seconds: float


class ServerLimits(TurnLimits):
    """What bounds requests and turns."""

    max_body_bytes: int
    max_wait_seconds: float
    max_labels: int


class Capabilities(BaseModel):
    """What this server has, in the caller's realm.

    `mcp_servers` are the tools of each as they are now. `options` and `turn_options` name the fields of a new session and of a
    turn: one that is false is refused. `default_provider` is null where the default model cannot be served any more.
    """

    providers: list[Name]
    open_providers: list[Name]
    default_model: str
    default_provider: Name | None
    builtin_tools: list[str]
    http_tools: list[str]
    mcp_servers: dict[str, list[str]]
    tools: ToolCategories
    options: dict[str, bool]
    turn_options: dict[str, bool]
    hooks: list[HookView]
    on_busy: list[OnBusy]
    interrupt_modes: list[Literal["now", "after_step"]]
    compaction: bool
    fork: bool
    export: bool
    limits: ServerLimits


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
                    "detail": "A turn is live. Wait for its end, interrupt it, or send on_busy: queue, steer or interrupt.",
                }
            ]
        },
    )
    type: str
    title: str
    status: int
    code: str
    detail: str
