"""The answer that a turn is to end with: free text, or a value that matches the caller's schema."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from app.agent import extraction
from app.errors import AgentError
from app.messages import Message, Text
from app.providers.base import Provider


class Wanted:
    """What is wanted of a turn's last answer.

    Args:
        schema: JSON Schema; None takes any text.
        retries: further tries at an answer that breaks it.

    Attributes:
        native: the schema as the own mode of the vendor asked takes it; None where it is asked for in words.
        warnings: what that mode cannot express.
        value: the answer as a value, once there is one.
    """

    def __init__(self, provider: Provider, schema: Mapping[str, Any] | None, retries: int) -> None:
        self.native: Mapping[str, Any] | None = None
        self.warnings: Sequence[str] = ()
        self.value: Any = None
        self._schema = schema
        self._provider: Provider | None = None
        self.ask(provider)
        self._tries_left = retries
        self._fault: str | None = None

    @property
    def is_failed(self) -> bool:
        """Whether the last try has failed."""
        return self._fault is not None and self._tries_left < 0

    def ask(self, provider: Provider) -> None:
        """Want the answer of this vendor from now on, in its own mode where it has one."""
        if self._schema is None or provider is self._provider:
            return
        self._provider, mode = provider, provider.native_schema(self._schema)
        self.native = mode.schema if mode is not None else None
        self.warnings = mode.warnings if mode is not None else ()

    def system(self, prompt: str | None) -> str | None:
        """Return the system prompt, with words on the schema where the vendor has no mode for it."""
        if self._schema is None or self.native is not None:
            return prompt
        words = extraction.instruction(self._schema)
        return words if prompt is None else f"{prompt}\n\n{words}"

    async def take(self, text: str) -> Message | None:
        """Take an answer; return what the model is told where it is to try again."""
        if self._schema is None:
            return None
        found = await asyncio.to_thread(extraction.extract, text, self._schema)
        self._fault, self.value = found.fault, found.value
        if found.fault is None:
            return None
        self._tries_left -= 1
        return None if self.is_failed else Message("user", (Text(extraction.correction(found.fault)),))

    def check(self) -> None:
        """Refuse to go on after the last try.

        Raises:
            AgentError: no answer has matched the schema.
        """
        if self.is_failed:
            raise AgentError("STRUCTURED_OUTPUT_INVALID", f"No answer matched the schema: {self._fault}")
