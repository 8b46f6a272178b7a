"""The wire's objects: what requests may say, and what answers look like.

Requests are strict. A field of the contract whose feature this version does not have is known here, so that it is refused with
501 instead of being ignored.
"""

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.copies.document import SessionExport
from app.errors import CapabilityUnavailable
from app.providers.registry import ModelName, Name
from app.realms import BudgetLimits, FallbackModels

Label: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]
ToolName: TypeAlias = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Title: TypeAlias = Annotated[str, Field(max_length=200)]
Later: TypeAlias = Any
"""A field whose feature this version does not have."""

MOST_LABELS = 32


def _asks_for_something(value: Any) -> bool:
    return value is not False and value not in (None, [], {})


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
                if _asks_for_something(value.get(name)):
                    raise CapabilityUnavailable(f"This server does not have {name} yet.", field=name)
        return value


class TextBlock(Strict):
    """Words."""

    type: Literal["text"]
    text: str = Field(min_length=1)


class ImageBytes(Strict):
    """An image itself."""

    type: Literal["base64"]
    media_type: Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
    data: Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z0-9+/]+={0,2}$")]


class ImageAddress(Strict):
    """Where an image is; the provider fetches it."""

    type: Literal["url"]
    url: Annotated[str, Field(pattern=r"^https://[^\s]+$", max_length=2048)]


class ImageBlock(Strict):
    """An image."""

    type: Literal["image"]
    source: Annotated[ImageBytes | ImageAddress, Field(discriminator="type")]


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


class ExternalTool(Strict):
    """A tool that the caller runs."""

    name: ToolName
    description: Annotated[str, Field(max_length=8192)]
    input_schema: dict[str, Any]
    timeout_seconds: Annotated[float, Field(gt=0, le=604_800, strict=False)] | None = None


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
        "preload_skills", "skill_references",
        "host_mode", "comms_name", "peer_meta", "silent_comms_intents", "max_inline_peer_notifications",
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
    output_schema: dict[str, Any] | None = None
    structured_output_retries: Annotated[int, Field(ge=0, le=10)] | None = None
    fallback_models: FallbackModels | None = None
    budget_limits: BudgetLimits | None = None
    external_tools: Annotated[list[ExternalTool], Field(max_length=128)] | None = None
    approval_tools: Annotated[list[ToolName], Field(max_length=256)] | None = None
    hooks_override: dict[str, Any] | None = None
    preload_skills: Later = None
    skill_references: Later = None
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
    external_tools: Annotated[list[ExternalTool], Field(max_length=128)] | None = None
    approval_tools: Annotated[list[ToolName], Field(max_length=256)] | None = None
    output_schema: dict[str, Any] | None = None
    structured_output_retries: Annotated[int, Field(ge=0, le=10)] | None = None
    fallback_models: FallbackModels | None = None
    budget_limits: BudgetLimits | None = None
    hooks_override: dict[str, Any] | None = None


class StartTurn(Strict):
    """A prompt for a session; what is given beside it holds for this turn alone."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "And in Tokyo?"}, {"prompt": "Next one.", "on_busy": "queue"}]}
    )
    later = ("skill_references", "host_mode")

    prompt: Prompt
    on_busy: Literal["reject", "queue", "steer", "interrupt"] | None = None
    model: ModelName | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    output_schema: dict[str, Any] | None = None
    budget_limits: BudgetLimits | None = None
    skill_references: Later = None
    host_mode: Later = None


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


class ToolResult(Strict):
    """What a caller's tool gave."""

    tool_call_id: str
    content: str
    is_error: bool = False


class ToolResults(Strict):
    """Results of calls that wait for their caller; all of them count, or none."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"results": [{"tool_call_id": "call_1", "content": "21 °C", "is_error": False}]}]}
    )
    results: Annotated[list[ToolResult], Field(min_length=1)]


class Decision(Strict):
    """Whether a call may run."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"decision": "allow"}, {"decision": "deny", "message": "No."}]})
    decision: Literal["allow", "deny"]
    message: Annotated[str, Field(max_length=4096)] | None = None


class Fork(Strict):
    """How much of a session to copy; without a turn all that is over."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"through_turn": 2}]})
    through_turn: Annotated[int, Field(ge=1)] | None = None


class Nothing(Strict):
    """A request without fields."""
