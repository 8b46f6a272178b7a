"""Inputs made of others, the same for the same seed: for a run without a fuzzer that looks at what the code does with them."""

import random
from collections.abc import Iterator, Sequence

from tests.hostile import NO_JSON, TEXTS

MOST_CHANGES = 4
MOST_BYTES = 4_096
TOKENS = [
    *[text.encode() for text in TEXTS.values()],
    *[data for data in NO_JSON.values() if len(data) < 100],
    b"null", b"true", b"-1", b"1e999", b"[]", b"{}", b'""', b"\n", b"\r", b"\r\n", b"\n\n", b"data:", b"%", b"&", b"=", b",",
]  # fmt: skip


def inputs(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield the seeds, then mixtures and changes of them."""
    yield from seeds
    chance = random.Random(seed)
    for _ in range(count):
        made = chance.choice(seeds)
        for _ in range(chance.randint(1, MOST_CHANGES)):
            made = _changed(made, seeds, chance)
        yield made[:MOST_BYTES]


def _changed(data: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    begin = chance.randint(0, len(data))
    end = min(len(data), begin + chance.choice((0, 1, 2, 8, 64)))
    other = chance.choice(seeds)
    middle = chance.choice([
        b"",
        data[begin:end] * 2,
        chance.choice(TOKENS),
        chance.randbytes(end - begin),
        other[chance.randint(0, len(other)) :],
    ])
    return data[:begin] + middle + data[end:]
