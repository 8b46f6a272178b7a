"""The wire's objects of keys, tickets and the audit trail."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas import Strict
from app.credentials import tickets
from app.credentials.caller import Scope
from app.db.walls import REALM_ID

RealmName = Annotated[str, Field(pattern="^" + REALM_ID.pattern.replace(r"\Z", "$"))]


class CreateKey(Strict):
    """A key to make.

    Args:
        scopes: the most of them counts: `admin` may all that `write` may, `write` all that `read` may.
        realm: whose key; only an operator names another than the own.
        expires_in_days: when it ends by itself; null: never.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "the web team", "scopes": ["write"]}]})

    name: Annotated[str, Field(min_length=1, max_length=100)]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3)]
    realm: RealmName | None = None
    expires_in_days: Annotated[float, Field(gt=0, le=3650)] | None = None


class RotateKey(Strict):
    """How a key is replaced.

    Args:
        overlap_seconds: how long the old one goes on to work.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"overlap_seconds": 3600}]})

    overlap_seconds: Annotated[float, Field(ge=0, le=30 * 86_400)] = 86_400


class AskTicket(Strict):
    """A ticket to make.

    Args:
        seconds: how long it opens streams.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"seconds": 600}]})

    seconds: Annotated[int, Field(ge=10, le=tickets.MOST_SECONDS)] = tickets.DEFAULT_SECONDS


class Key(BaseModel):
    """A key, without its secret."""

    key_id: str
    name: str
    hint: str
    scopes: list[Scope]
    created_by: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class MadeKey(Key):
    """A key, this once with its secret; null in the answer to a repeat."""

    key: str | None


class KeyList(BaseModel):
    """A realm's keys."""

    keys: list[Key]


class Ticket(BaseModel):
    """A ticket."""

    ticket: str
    session_id: str
    expires_at: str


class AuditEntry(BaseModel):
    """One thing that was done."""

    entry_id: str
    at: str
    credential: str
    action: str
    target: Mapping[str, str]
    request_id: str | None


class AuditPage(BaseModel):
    """A page of the trail."""

    entries: list[AuditEntry]
    next_cursor: str | None
