"""Everything that can go wrong and that a caller may be told, as one tree.

    SuricateError
    ├── Refused                 a request was refused; nothing of it was kept
    │   ├── InvalidRequest  MalformedJson  UnsupportedMediaType  BodyTooLarge  HeadersTooLarge  InvalidCursor
    │   ├── MalformedRequest  RequestTimeout  HostNotAllowed  OriginNotAllowed
    │   ├── SessionNotFound  TurnNotFound  NodeNotFound  KeyNotFound  WebhookNotFound  DeliveryNotFound
    │   ├── RouteNotFound  MethodNotAllowed
    │   ├── SessionBusy  SessionNotRunning  SessionArchived  SessionExists  TurnNotQueued  ToolCallNotPending
    │   ├── IdempotencyKeyReused  IdempotencyInProgress  ConfigConflict
    │   ├── CapabilityUnavailable  SessionPersistenceDisabled  SessionCompactionDisabled
    │   └── Unauthenticated  Forbidden  RateLimited  CapacityExceeded
    ├── StoreUnavailable        Postgres could not be reached or refused the write
    ├── StartupError            the process cannot start; the message says what to do
    ├── Unsealable              a secret cannot be opened with the keys at hand
    ├── Fenced                  another attempt owns the turn now; stop for good
    └── AgentError              a turn ended `failed`; carries a reason
        └── ProviderError       a model vendor's fault, translated

The code is stable and public; the HTTP status for it stands in `app/api/problems.py` alone.
"""

from typing import ClassVar

from app import redaction


class SuricateError(Exception):
    """The root: every error that the code raises on purpose. Its words are made without secrets, wherever they go."""

    code: ClassVar[str] = "INTERNAL"

    def __init__(self, detail: str, **members: object) -> None:
        self.detail = redaction.redacted(detail)
        super().__init__(self.detail)
        self.members = members


class Refused(SuricateError):
    """The request was refused and nothing of it was kept."""


class InvalidRequest(Refused):
    """Well-formed JSON or a query that breaks the schema."""

    code = "INVALID_REQUEST"

    @classmethod
    def at(cls, loc: str, msg: str) -> "InvalidRequest":
        """Make the error for one place, in the form that a validation of many places has."""
        return cls("The request is not valid.", errors=[{"loc": loc, "msg": msg}])


class MalformedJson(Refused):
    """The body is not the strict JSON that this service reads."""

    code = "MALFORMED_JSON"


class UnsupportedMediaType(Refused):
    """The body is not `application/json`."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class BodyTooLarge(Refused):
    """The body is over the limit."""

    code = "BODY_TOO_LARGE"


class HeadersTooLarge(Refused):
    """The request's head is over the limit."""

    code = "HEADERS_TOO_LARGE"


class MalformedRequest(Refused):
    """The bytes are no HTTP request that this server could answer."""

    code = "MALFORMED_REQUEST"


class RequestTimeout(Refused):
    """The request did not come whole: its client sent too slowly, or left."""

    code = "REQUEST_TIMEOUT"


class HostNotAllowed(Refused):
    """The request is for a host that this server is not."""

    code = "HOST_NOT_ALLOWED"


class OriginNotAllowed(Refused):
    """The request comes from a page of an origin that may not make it."""

    code = "ORIGIN_NOT_ALLOWED"


class InvalidCursor(Refused):
    """A list cursor or an event cursor that is not of the documented form."""

    code = "INVALID_CURSOR"


class SessionNotFound(Refused):
    """No such session: never was, deleted, or another realm's; the three cannot be told apart."""

    code = "SESSION_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("No such session.")


class TurnNotFound(Refused):
    """No such turn in this session."""

    code = "TURN_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("No such turn in this session.")


class NodeNotFound(Refused):
    """No such node: never was, has stopped in order, or was not seen for so long that it was forgotten."""

    code = "NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("No such node.")


class KeyNotFound(Refused):
    """No such API key in this realm."""

    code = "NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("No such key.")


class WebhookNotFound(Refused):
    """No such webhook in the realm."""

    code = "NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("No such webhook.")


class DeliveryNotFound(Refused):
    """No such delivery of this webhook, or it was forgotten."""

    code = "NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("No such delivery of this webhook.")


class RouteNotFound(Refused):
    """No such route."""

    code = "NOT_FOUND"


class MethodNotAllowed(Refused):
    """The route exists, the method does not."""

    code = "METHOD_NOT_ALLOWED"


class SessionBusy(Refused):
    """A turn is live and the caller did not ask to wait behind it."""

    code = "SESSION_BUSY"


class SessionNotRunning(Refused):
    """An interrupt of a session, or of a turn, that is not running."""

    code = "SESSION_NOT_RUNNING"


class SessionArchived(Refused):
    """A turn on an archived session."""

    code = "SESSION_ARCHIVED"


class SessionExists(Refused):
    """A session is to be resumed under an id that is taken."""

    code = "SESSION_EXISTS"


class TurnNotQueued(Refused):
    """Editing or cancelling a turn that is no longer queued."""

    code = "TURN_NOT_QUEUED"


class ToolCallNotPending(Refused):
    """A result or a decision for a call that no one waits for."""

    code = "TOOL_CALL_NOT_PENDING"


class IdempotencyKeyReused(Refused):
    """The key came before with another body."""

    code = "IDEMPOTENCY_KEY_REUSED"


class IdempotencyInProgress(Refused):
    """The first request with this key has not committed yet."""

    code = "IDEMPOTENCY_IN_PROGRESS"


class ConfigConflict(Refused):
    """The realm's configuration has changed since the caller read it."""

    code = "CONFIG_CONFLICT"


class CapabilityUnavailable(Refused):
    """An option or a route that this server does not have or has switched off."""

    code = "CAPABILITY_UNAVAILABLE"


class SessionPersistenceDisabled(Refused):
    """Export, fork or resume of a session that was made to go after its last turn."""

    code = "SESSION_PERSISTENCE_DISABLED"

    def __init__(self) -> None:
        super().__init__("An ephemeral session is not exported, forked or resumed.")


class SessionCompactionDisabled(Refused):
    """The realm's compaction is switched off."""

    code = "SESSION_COMPACTION_DISABLED"

    def __init__(self) -> None:
        super().__init__("Compaction is switched off in this realm.")


class Unauthenticated(Refused):
    """No credential, or one that is not good."""

    code = "UNAUTHENTICATED"


class Forbidden(Refused):
    """A good credential, for something else than this."""

    code = "FORBIDDEN"


class RateLimited(Refused):
    """Requests come faster than the credential or its realm may make them."""

    code = "RATE_LIMITED"


class CapacityExceeded(Refused):
    """The realm has as much as it may have of something."""

    code = "CAPACITY_EXCEEDED"


class StoreUnavailable(SuricateError):
    """Postgres could not be reached or refused the write; whether a commit was kept may be unknown."""

    code = "SESSION_STORE_ERROR"


class StartupError(SuricateError):
    """The process cannot start; the message says what to do about it."""


class Unsealable(SuricateError):
    """A secret cannot be opened with the keys at hand."""


class Fenced(SuricateError):
    """Another attempt, or the door, owns the turn now: nothing was written, stop for good."""

    def __init__(self) -> None:
        super().__init__("This attempt no longer owns its turn.")


class AgentError(SuricateError):
    """A turn cannot go on; it ends `failed` with this reason."""

    code = "AGENT_ERROR"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ProviderError(AgentError):
    """A model vendor's fault in our words.

    Args:
        reason: one of the contract's reasons, e.g. `PROVIDER_UNAVAILABLE`.
        message: what happened, without the vendor's raw words or any secret.
        is_retryable: whether the same call may succeed when made again.
        retry_after_seconds: how long the vendor asked to wait; None where it did not say.
    """

    def __init__(
        self, reason: str, message: str, *, is_retryable: bool = False, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(reason, message)
        self.is_retryable = is_retryable
        self.retry_after_seconds = retry_after_seconds
