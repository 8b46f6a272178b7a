"""Judges of the steps of one session's log. Each token and each call bears the number of the request that said it.

no_write_after_fence  a try at a step holds the tokens of one request, all up to the last shown, none of an older request; what
                      is complete is what was shown; no try is written on after `turn_resumed`
answers_whole         a step that was completed is an answer that the provider had played whole
usage_adds_up         and bears the usage that the provider had reported for it
calls_once            a call is asked for, started, executed and received in this order, once each; `lookup` may start again
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.torture.evidence import Event, usage_of
from tests.torture.frames import checksum
from tests.torture.records import Asked
from tests.torture.verdict import Verdict

FENCE = "no_write_after_fence"
REPEATABLE = "lookup"

_TOKEN = re.compile(r"(\d+)\.(\d+) ")
_CALL = re.compile(r"call_(\d+)_\d+")


@dataclass
class Try:
    """One request's answer as the log has it."""

    step: int
    from_seq: int
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    requests: set[int] = field(default_factory=set)
    is_fenced: bool = False


class Tries:
    """Judges one session; turns follow each other, so one try is open at most.

    Attributes:
        said: checksums of the texts that steps of each turn have left for its transcript, whole ones and the one that was cut.
    """

    def __init__(self, session_id: str, verdict: Verdict, asked: Mapping[int, Asked], *, may_miss: bool) -> None:
        """Judge a session.

        Args:
            may_miss: whether the provider was killed, so that a line of its book may be missing.
        """
        self._where = f"session {session_id}"
        self._verdict = verdict
        self._asked = asked
        self._may_miss = may_miss
        self._open: Try | None = None
        self._newest = -1
        self.unrecorded = 0
        self.said: dict[str, list[int]] = {}

    def take(self, event: Event) -> None:
        """Judge one event of a turn."""
        match event.type:
            case "step_started":
                self._claim(self._open is None, event, "a try is open")
                self._open = Try(event.fields["step"], event.seq)
            case "step_discarded":
                self._discard(event)
            case "turn_resumed":
                if self._open is not None:
                    self._open.is_fenced = True
            case "step_completed":
                self._complete(event)
            case "turn_completed" | "turn_failed" | "turn_interrupted":
                self._end(event)
            case _ if "step" in event.fields:
                self._say(event)
            case _:
                pass

    def _say(self, event: Event) -> None:
        current = self._open
        if current is None or current.step != event.fields["step"]:
            self._claim(False, event, "no try at this step is open")
            return
        self._claim(not current.is_fenced, event, "written by an attempt that was over")
        match event.type:
            case "text_delta":
                current.text.append(event.fields["delta"])
            case "reasoning_delta":
                current.reasoning.append(event.fields["delta"])
            case "text_complete":
                self._claim(event.fields["content"] == "".join(current.text), event, "is not what was shown")
            case "reasoning_complete":
                self._claim(event.fields["content"] == "".join(current.reasoning), event, "is not what was shown")
            case "tool_call_delta" | "tool_call_requested":
                named = _CALL.fullmatch(event.fields["id"])
                self._claim(named, event, f"call {event.fields['id']} is none that the provider has made")
                current.requests.update({int(named[1])} if named else ())

    def _discard(self, event: Event) -> None:
        current = self._open
        if current is None:
            self._claim(False, event, "no try is open")
            return
        self._claim(event.fields["from_seq"] == current.from_seq, event, f"the try began at {current.from_seq}")
        self._close(event)

    def _complete(self, event: Event) -> None:
        current = self._open
        if current is None or current.step != event.fields["step"]:
            self._claim(False, event, "no try at this step is open")
            return
        self._claim(not current.is_fenced, event, "written by an attempt that was over")
        if current.text or current.requests:
            self._keep(event, current)
        number = self._close(event)
        if number is None:
            self._verdict.add("answers_whole", f"{self._where}, {event.seq}: a step was completed that said nothing")
            return
        asked = self._asked.get(number)
        if asked is None:
            self.unrecorded += 1
            self._verdict.claim("answers_whole", self._may_miss, f"{self._where}, {event.seq}: no request {number} was made")
            return
        self._verdict.claim(
            "answers_whole", asked.played == "whole", f"{self._where}, {event.seq}: {asked.played} taken for whole"
        )
        told, given = usage_of(event.fields["usage"]), asked.usage or {}
        reported = (given.get("prompt_tokens", 0), given.get("completion_tokens", 0), 0, 0)
        self._verdict.claim("usage_adds_up", told == reported, f"{self._where}, {event.seq}: {told}, reported were {reported}")

    def _end(self, event: Event) -> None:
        self._claim(self._open is None or event.type != "turn_completed", event, "a try is open")
        if self._open is not None and self._open.text:
            self._keep(event, self._open)
        self._close(event)

    def _keep(self, event: Event, current: Try) -> None:
        self.said.setdefault(event.turn_id, []).append(checksum("".join(current.text).encode()))

    def _close(self, event: Event) -> int | None:
        """Hold what the open try has shown against what one request says; return its number."""
        current, self._open = self._open, None
        if current is None:
            return None
        shown = "".join(current.reasoning) + "".join(current.text)
        current.requests.update(int(number) for number, _ in _TOKEN.findall(shown))
        if not current.requests:
            self._claim(not shown, event, f"the try showed {shown[:40]!r}")
            return None
        number = min(current.requests)
        said = "".join(f"{number}.{place} " for place in range(len(_TOKEN.findall(shown))))
        self._claim(len(current.requests) == 1, event, f"the try has words of requests {sorted(current.requests)}")
        self._claim(shown == said, event, f"the try does not hold the words of request {number} in order")
        self._claim(number > self._newest, event, f"request {number} is no newer than {self._newest}")
        self._newest = max(self._newest, number)
        return number

    def _claim(self, holds: object, event: Event, text: str) -> None:
        self._verdict.claim(FENCE, holds, f"{self._where}, {event.seq} {event.type}: {text}")


class Calls:
    """calls_once."""

    STAGES: Mapping[str, int] = {
        "tool_call_requested": 0, "tool_call_pending": 1, "tool_execution_started": 2, "tool_execution_timed_out": 3,
        "tool_execution_completed": 4, "tool_result_received": 5,
    }  # fmt: skip

    def __init__(self, session_id: str, verdict: Verdict) -> None:
        self._where = f"session {session_id}"
        self._verdict = verdict
        self._open: dict[str, int] = {}
        self._seen: set[str] = set()

    def take(self, event: Event) -> None:
        """Judge one event of a turn."""
        stage = self.STAGES.get(event.type)
        if stage is not None:
            self._step(event, event.fields["id"], stage)
        elif event.type in {"turn_completed", "turn_failed", "turn_interrupted"}:
            self._claim(not self._open, event, f"calls without a result: {sorted(self._open)}")
            self._open.clear()

    def _step(self, event: Event, call_id: str, stage: int) -> None:
        if stage == 0:
            self._claim(call_id not in self._seen, event, f"{call_id} is asked for again")
            self._seen.add(call_id)
        elif call_id not in self._open:
            self._claim(False, event, f"{call_id} is not open")
            return
        else:
            may_repeat = event.type == "tool_execution_started" and event.fields["name"] == REPEATABLE
            before = self._open[call_id]
            self._claim(stage > before or (stage == before and may_repeat), event, f"{call_id} was further already")
        self._open[call_id] = stage
        if event.type == "tool_result_received":
            del self._open[call_id]

    def _claim(self, holds: object, event: Event, text: str) -> None:
        self._verdict.claim("calls_once", holds, f"{self._where}, {event.seq} {event.type}: {text}")
