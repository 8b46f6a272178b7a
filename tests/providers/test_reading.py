"""A vendor's JSON as it is read."""

from typing import Any

import pytest

from app.errors import ProviderError
from app.providers import reading


@pytest.mark.parametrize("data", [b"", b"{oops", b'{"x":"\xff"}', b"[]", b"5", b'{"\\ud83d', b"[" * 99_999])
def test_what_is_no_json_object_is_refused_without_the_vendors_words(data: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        reading.event(data)

    assert (caught.value.reason, caught.value.is_retryable) == ("PROVIDER_PROTOCOL", True)
    assert caught.value.__cause__ is None


def test_surrogates_are_paired_and_replaced_where_they_stand_alone() -> None:
    assert reading.event(rb'{"x": "\ud83d\ude82 \ud83d."}') == {"x": "🚂 \ufffd."}


@pytest.mark.parametrize("value", [None, -1, 10**9 + 1, 1.5, "7", True, [], {}])
def test_count_that_cannot_be_is_0(value: Any) -> None:
    assert reading.token_count(value) == 0


def test_count_is_taken_as_it_is() -> None:
    assert [reading.token_count(value) for value in (0, 7, 10**9)] == [0, 7, 10**9]
