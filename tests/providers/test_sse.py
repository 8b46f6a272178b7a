"""The parser of vendors' event streams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ProviderError
from app.providers.sse import SseParser

line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
payloads = st.binary(max_size=20).map(lambda data: data.replace(b"\r", b"-"))
stream_bytes = st.lists(
    st.sampled_from([
        b"data: x",
        b"data:",
        b"data",
        b"dat",
        b": ping",
        b"id: 1",
        b"\xef\xbb\xbf",
        b"\n",
        b"\r",
        b"\r\n",
        b"\x00",
    ])
).map(b"".join)


def parse(pieces: list[bytes]) -> list[bytes]:
    parser = SseParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in zip(bounds, bounds[1:], strict=False)]  # noqa: RUF007 - clearer so


@given(stream=stream_bytes, places=st.lists(st.integers(min_value=0)))
def test_any_cutting_of_any_stream_gives_the_same_events(stream: bytes, places: list[int]) -> None:
    assert parse(cut(stream, places)) == parse([stream])


@given(events=st.lists(payloads), end=line_ends, places=st.lists(st.integers(min_value=0)), has_bom=st.booleans())
def test_what_was_written_is_read_with_any_line_end_and_cutting(
    events: list[bytes], end: bytes, places: list[int], has_bom: bool
) -> None:
    written = [end.join(b"data: " + line for line in event.split(b"\n")) + end + end for event in events]
    stream = (b"\xef\xbb\xbf" if has_bom else b"") + b"".join(written)

    assert parse(cut(stream, places)) == events


def test_lines_of_one_event_are_joined_and_other_fields_skipped() -> None:
    stream = b': ping\nevent: delta\nid: 7\ndata: {"a":\nretry: 5\ndata:1}\n\n'

    assert parse([stream]) == [b'{"a":\n1}']


def test_event_without_its_empty_line_is_no_event() -> None:
    assert parse([b"data: whole\n\ndata: half\n"]) == [b"whole"]


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: " + b"x" * 100 + b"\n\n"],
        [b"data: ", *[b"x"] * 100],
        [b"data: xxxxxxxx\n"] * 10,
        [b"data:\n"] * 100,
        [b": " + b"x" * 100 + b"\n"],
        [b"data: xx", *[b"x"] * 100],
    ],
    ids=["a line", "a line in pieces", "many lines", "many empty lines", "a comment", "a drip"],
)
def test_event_over_the_limit_is_refused_as_soon_as_it_is_over(pieces: list[bytes]) -> None:
    parser = SseParser(max_event_bytes=64)

    with pytest.raises(ProviderError) as caught:
        list(map(parser.feed, pieces))

    assert (caught.value.reason, caught.value.is_retryable) == ("PROVIDER_PROTOCOL", True)
