"""Ways in which the service is broken on purpose, each with who must notice and what brings it to light.

A mutation is small and could have been written by mistake. What it replaces stands in the service exactly once: where it does
not any more, `broken_copy` says so, and the mutation is to be written anew.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.torture import plans
from tests.torture.processes import ROOT

COPIED = ("app", "migrations", "pyproject.toml")


@dataclass(frozen=True, slots=True)
class Provocation:
    """What a fleet is put through for it.

    Args:
        kinds, links: what is broken, as the nemesis takes them.
        sessions: on which clients work at a time; few of them make clients meet.
        calling, faulty: shares of plans that call tools, and that have the provider fail.
    """

    name: str
    kinds: frozenset[str] = frozenset()
    links: str = ""
    seconds: float = 30
    sessions: int = 16
    calling: float = plans.HAS_CALLS
    faulty: float = plans.HAS_FAULTS


@dataclass(frozen=True, slots=True)
class Edit:
    """Words of one file, and what stands in their place."""

    path: str
    old: str
    new: str

    def apply(self, code: Path) -> None:
        """Change the file in a folder.

        Raises:
            LookupError: the words do not stand there exactly once.
        """
        file = code / self.path
        text = file.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise LookupError(f"{self.path} has this {text.count(self.old)} times, and not once: {self.old}")
        file.write_text(text.replace(self.old, self.new), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Mutation:
    """One of them.

    Args:
        claim: what the service does under it.
        caught_by: invariants of the checker; one of them must be violated.
    """

    name: str
    claim: str
    caught_by: frozenset[str]
    provocation: Provocation
    edits: Sequence[Edit]


def broken_copy(edits: Sequence[Edit], code: Path) -> Path:
    """Copy what nodes run into a folder that is not there yet, and change it.

    Raises:
        LookupError: as `Edit.apply`.
    """
    code.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, code / name)
    for edit in edits:
        edit.apply(code)
    return code


CRASHING, ENDING = frozenset({"node_kill", "node_pause"}), frozenset({"terminate_backends"})
CALM = Provocation("calm")
CROWD = Provocation("crowd", sessions=2)
TROUBLE = Provocation("trouble", faulty=0.5)
CRASHES = Provocation("crashes", CRASHING, seconds=40)
ROOM = Provocation("room", CRASHING, seconds=40, sessions=256)  # a turn left lying is not soon ended by another client
CALLS = Provocation("calls", CRASHING, seconds=60, calling=0.9)
POSTGRES = Provocation("postgres", ENDING | {"postgres_immediate", "postgres_kill"}, seconds=40)
BACKENDS = Provocation("backends", ENDING, seconds=40)
CUTS = Provocation("cuts", ENDING | {"link_cut", "link_deaf"}, links=".postgres", seconds=40)
DOOR = Provocation("door", frozenset({"link_cut", "link_deaf", "node_kill"}), links=".clients", seconds=40)

APPEND, WRITER, ENGINE = "app/journal/append.py", "app/journal/writer.py", "app/db/engine.py"
SCHEMA = "migrations/versions/0001_first_schema.py"
CHOICE = (
    "WHERE s.fence = e.fence AND (e.number = 0 OR s.append_number < e.number) FOR NO KEY UPDATE OF s SKIP LOCKED\n"
    "), numbered AS (\n  UPDATE sessions s SET\n    last_seq = s.last_seq + e.events,\n"
)
CHOICES = (f"{CHOICE}    message_count", f"{CHOICE}    stored_bytes")
"""How each of the two statements that append chooses what it writes."""


def _without(words: str) -> list[Edit]:
    """Take a condition out of both."""
    return [Edit(APPEND, choice, choice.replace(words, "")) for choice in CHOICES]


FENCELESS = [
    *_without("s.fence = e.fence AND "),
    Edit(APPEND, "s.id = e.session_id AND s.fence = e.fence\n    AND NOT", "s.id = e.session_id\n    AND NOT"),
    Edit(APPEND, "s.id = e.session_id AND s.fence = e.fence\n  RETURNING", "s.id = e.session_id\n  RETURNING"),
]
UNLOCKED = [
    Edit("app/sessions.py", " FOR NO KEY UPDATE OF s", ""),
    Edit(SCHEMA, "        unique=True,\n        postgresql_where", "        postgresql_where"),
]
LATE = [  # the moment between the look and the deed, made longer
    Edit("app/turns/desk.py", "from collections.abc import Mapping\n", "import asyncio\nfrom collections.abc import Mapping\n"),
    Edit("app/turns/desk.py", "    turn_id = ids.turn_id()\n", "    turn_id = ids.turn_id()\n    await asyncio.sleep(0.05)\n"),
]
NUMBERS_ALIKE = Edit(SCHEMA, 'sa.UniqueConstraint("session_id", "number", name="turns_session_id_number"),', "")

MUTATIONS = [
    Mutation(
        "fence_unchecked",
        "An attempt whose turn was taken over or ended writes on.",
        frozenset({"no_write_after_fence", "one_terminal"}),
        CRASHES,
        FENCELESS,
    ),
    Mutation(
        "shown_before_commit",
        "Readers get events while their commit is still under way.",
        frozenset({"shown_is_stored"}),
        POSTGRES,
        [
            Edit(
                WRITER,
                "        began = clock.monotonic()\n        try:\n",
                "        began = clock.monotonic()\n        await db.execute('BEGIN')\n        try:\n",
            ),
            Edit(
                WRITER,
                "        telemetry.COMMIT_SECONDS.observe(clock.monotonic() - began)\n",
                "        for result in results:\n"
                "            if result is not None:\n"
                "                self._publish(result)\n"
                "        await asyncio.sleep(0.02)\n"
                "        await db.execute('COMMIT')\n",
            ),
        ],
    ),
    Mutation(
        "admission_unlocked",
        "Who starts a turn reads whether one is live, and does not keep it from changing: others are answered with a 500.",
        frozenset({"answers_true"}),
        CROWD,
        UNLOCKED,
    ),
    Mutation(
        "admission_unguarded",
        "The same, and neither its number nor a fence keeps the second live turn out.",
        frozenset({"one_live_turn"}),
        CROWD,
        [*UNLOCKED, *LATE, NUMBERS_ALIKE, *FENCELESS],
    ),
    Mutation(
        "tool_run_again",
        "A call that had begun when its node died is run again, though its tool is not idempotent.",
        frozenset({"effects_once", "calls_once"}),
        CALLS,
        [
            Edit(
                "app/agent/calls.py",
                "        if call.is_started and not tool.is_idempotent:\n            return UNKNOWN_OUTCOME\n",
                "",
            )
        ],
    ),
    Mutation(
        "interrupt_forgets",
        "An interrupt drops the text that was streamed.",
        frozenset({"said_is_kept"}),
        CALM,
        [Edit("app/agent/transcript.py", '    text = "".join(state.text)\n', '    text = ""\n')],
    ),
    Mutation(
        "commit_not_flushed",
        "A commit is acknowledged before Postgres has made it durable.",
        frozenset({"acknowledged_is_durable", "shown_is_stored"}),
        POSTGRES,
        [
            Edit(ENGINE, '    "timezone": "UTC",\n', '    "timezone": "UTC",\n    "synchronous_commit": "off",\n'),
            Edit(ENGINE, 'for setting in ("fsync", "synchronous_commit"):', 'for setting in ("fsync",):'),
        ],
    ),
    Mutation(
        "commit_believed",
        "A transaction whose commit fails is taken for done, and answered so.",
        frozenset({"acknowledged_is_durable", "shown_is_stored"}),
        BACKENDS,
        [
            Edit(
                ENGINE,
                "                    await _commit(db)\n",
                "                    await asyncio.sleep(0.05)\n"
                "                    with contextlib.suppress(*UNAVAILABLE):\n"
                "                        await _commit(db)\n",
            )
        ],
    ),
    Mutation(
        "resume_skips",
        "A reader that comes back misses the event behind its cursor.",
        frozenset({"streams_in_order"}),
        CALM,
        [Edit("app/journal/reader.py", "AND seq > $2\n", "AND seq > $2 + ($2 > 0)::int\n")],
    ),
    Mutation(
        "seam_skips",
        "A reader goes on from memory though the event before that is in the table alone.",
        frozenset({"streams_in_order"}),
        CALM,
        [
            Edit(
                "app/journal/subscriptions.py",
                "self.ring[0].seq <= seq + 1 <= self.ring[-1].seq",
                "self.ring[0].seq <= seq + 2 <= self.ring[-1].seq + 1",
            )
        ],
    ),
    Mutation(
        "key_forgotten",
        "The record of an idempotency key does not come with its effect.",
        frozenset({"once_per_key"}),
        DOOR,
        [Edit("app/idempotency.py", "    if request is None:\n        return\n", "    return\n")],
    ),
    Mutation(
        "nobody_takes_over",
        "Nobody looks for turns whose node has died.",
        frozenset({"within_bound", "settled", "one_terminal", "usable"}),
        ROOM,
        [Edit("app/worker/recovery.py", "found = await claims.due(db, MOST_AT_ONCE)", "found = list[str]()")],
    ),
    Mutation(
        "cut_answer_believed",
        "A provider's stream that ends without its finish marker is taken for a whole answer.",
        frozenset({"answers_whole"}),
        TROUBLE,
        [
            Edit(
                "app/providers/chunks.py",
                'raise refusals.malformed("The provider\'s stream ended without its finish marker.")',
                'stop_reason = "end_turn"',
            )
        ],
    ),
    Mutation(
        "step_not_discarded",
        "Who takes a turn over leaves the step that was cut as it is.",
        frozenset({"no_write_after_fence"}),
        CRASHES,
        [Edit("app/turns/takeover.py", 'events.append(StepDiscarded(state.step, "resumed", state.from_seq))', "pass")],
    ),
    Mutation(
        "commit_repeated",
        "An entry whose commit was lost from sight is written again, whether it is durable or not.",
        frozenset({"no_write_after_fence", "calls_once", "one_terminal"}),
        CUTS,
        [
            Edit(WRITER, "(unsure, await _looked_up(db, unsure))", '(unsure, ["again"] * len(unsure))'),
            *_without(" AND (e.number = 0 OR s.append_number < e.number)"),
        ],
    ),
]
