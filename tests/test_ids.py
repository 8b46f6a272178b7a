"""Identifiers."""

import uuid

import pytest

from app import clock, ids


def test_ids_are_uuids_of_version_seven_in_lower_case() -> None:
    made = [ids.session_id(), ids.turn_id(), ids.node_id(), ids.uuid7()]

    for text in made:
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, text)
        assert ids.is_id(text)


def test_ids_begin_with_the_time_and_so_sort_by_it() -> None:
    before = clock.epoch_milliseconds()

    made = ids.uuid7()

    assert before <= uuid.UUID(made).int >> 80 <= clock.epoch_milliseconds()


def test_ids_differ() -> None:
    assert len({ids.uuid7() for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "01890000-0000-7000-8000-00000000000", "01890000-0000-7000-8000-0000000000000",
        "01890000-0000-7000-8000-00000000000A", "0189000000007000800000000000000a", "{01890000-0000-7000-8000-000000000000}",
        "01890000-0000-7000-8000-000000000000\n", "\0" * 36, "０1890000-0000-7000-8000-000000000000",
    ],
)  # fmt: skip
def test_what_has_not_the_form_of_an_id_is_none(text: str) -> None:
    assert not ids.is_id(text)
