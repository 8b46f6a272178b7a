"""What the processes of a run write down: one JSON object a line, one file for each writer, in the folder of the run.

Times are `began`, `ended`, `at`: seconds of the machine's monotonic clock, which all processes share. A line is written when
what it tells of is over, and flushed; a writer that is killed loses the last one at most.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar

import orjson

Outcome: TypeAlias = Literal["ok", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of a client. File: `operations-<client>.jsonl`.

    Args:
        name: what was asked for, as `start_turn`.
        node: which one was asked.
        outcome: `ok` is a 2xx, `fail` another status, `unknown` no whole answer.
        status, code: of the answer, where there was one.
        session_id: None where a create had no answer.
        turn_id: of the turn that the answer names.
        plan: id of the plan that the prompt held.
        key: its idempotency key; the same in all tries of one act.
        facts: more that was asked for or that the answer said and the checker holds to be durable (`acts`); `wrong` lists
            what a 2xx said against the contract, or a refusal that had no ground.
    """

    client: str
    name: str
    node: str
    began: float
    ended: float
    outcome: Outcome
    status: int | None = None
    code: str | None = None
    session_id: str | None = None
    turn_id: str | None = None
    plan: str | None = None
    key: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shown:
    """A run of frames that a watcher got on one connection. File: `shown-<watcher>.jsonl`.

    Args:
        after: the cursor that the connection began with.
        frames: number and checksum (`zlib.crc32` of the `data` text's bytes) of each, as they came.
        end: how the connection went on: `more` (another line of it follows), `ended`, `draining`, `reset` (`stream_reset`),
            `malformed`, `lost`, `left` by the watcher itself, or a status.
    """

    watcher: str
    session_id: str
    node: str
    connection: int
    after: int
    frames: list[tuple[int, int]]
    end: str
    at: float


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was broken, and healed. File: `faults.jsonl`.

    Args:
        kind: as `node_kill`, `node_pause`, `postgres_immediate`, `link_cut`, `provider_down`.
        target: which node, edge or process; nodes are named as in operations (`n1`), edges as `n1.clients`, `n1.postgres`,
            `n1.provider`, `n1.tools`.
        evidence: what proves that it bit, as the process's exit, connections that broke, bytes that were swallowed.
        has_bitten: whether the evidence is one.
    """

    kind: str
    target: str
    began: float
    ended: float
    evidence: Mapping[str, Any]
    has_bitten: bool


@dataclass(frozen=True, slots=True)
class Effect:
    """A tool did something that cannot be undone. File: `effects.jsonl`, written by the tool before it answers.

    Args:
        key: plan, step and place of the call, as `plan.effect_key` makes it.
    """

    key: str
    tool: str
    tool_call_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Asked:
    """The provider was asked and has answered, in full or not. File: `asked-<start>.jsonl`.

    Args:
        number: of the request; each token that it says begins with it.
        plan, step: what it played; None for a request without a plan, as for a summary.
        usage: what it reported to the node, None where it did not get so far.
        rejected: why the transcript is one that providers refuse.
    """

    number: int
    plan: str | None
    step: int
    played: str
    usage: Mapping[str, int] | None
    rejected: str | None
    at: float


Kept: TypeAlias = Operation | Shown | Fault | Effect | Asked
AnyKept = TypeVar("AnyKept", bound=Kept)


class Book:
    """A file that one process writes; open it with `with`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, record: Kept) -> None:
        """Write one record, whole."""
        self._file.write(orjson.dumps(record) + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def read(folder: Path, pattern: str, kind: type[AnyKept]) -> Iterator[AnyKept]:
    """Read the records of all files of a folder that match; a last line that was cut off is passed over."""
    names = {member.name for member in dataclasses.fields(kind)}
    for path in sorted(folder.glob(pattern)):
        with path.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    found = orjson.loads(line)
                    yield kind(**{name: found[name] for name in names})
