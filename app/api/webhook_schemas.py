"""The wire's objects of webhooks."""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas import Strict
from app.webhooks.deliveries import Status
from app.webhooks.webhook import KINDS, Kind

Url: TypeAlias = Annotated[str, Field(min_length=1, max_length=2_000)]
Kinds: TypeAlias = Annotated[list[Literal[Kind]], Field(min_length=1, max_length=len(KINDS))]


class CreateWebhook(Strict):
    """A URL that is to be told of events of these types, all of them by default; of one session, or of all of the realm."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "https://example.com/told", "types": ["turn_completed", "turn_failed"]}]}
    )
    url: Url
    types: Kinds | None = None
    session_id: str | None = None


class ChangeWebhook(Strict):
    """What is to be different; absent or null leaves it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"types": ["session_archived"]}, {"is_enabled": False}]})
    url: Url | None = None
    types: Kinds | None = None
    is_enabled: bool | None = None


class WebhookView(BaseModel):
    """A webhook; `session_id` null is told of all sessions of the realm."""

    webhook_id: str
    url: str
    types: list[Kind]
    session_id: str | None
    is_enabled: bool
    created_at: str
    updated_at: str


class NewWebhook(WebhookView):
    """A webhook as it was made, with the secret that its messages are signed with; it is not shown again."""

    secret: str


class WebhookList(BaseModel):
    """All webhooks of the realm, the oldest first."""

    webhooks: list[WebhookView]


class DeliveryView(BaseModel):
    """One event for one webhook; `delivery_id` is the message's `webhook-id`, and `last_error` says why the last try failed."""

    delivery_id: str
    webhook_id: str
    session_id: str
    turn_id: str | None
    seq: int
    type: Kind
    status: Status
    attempts: int
    next_attempt_at: str | None
    last_status: int | None
    last_error: str | None
    created_at: str
    ended_at: str | None


class DeliveryPage(BaseModel):
    """A page of deliveries, the newest first."""

    deliveries: list[DeliveryView]
    next_cursor: str | None
