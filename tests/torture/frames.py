"""Server-Sent Events as bytes: frames are told from each other, and their data summed, but not read."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

Take: TypeAlias = Callable[[int, bytes, bytes], None]


def checksum(envelope: bytes) -> int:
    """Sum a frame's data."""
    return zlib.crc32(envelope)


@dataclass(slots=True)
class Frames:
    """Takes pieces of a body as they come.

    Args:
        take: given the number, type and data of each frame that has a number.

    Attributes:
        said: types of frames without a number, which are no events.
        is_malformed: whether something came that is no such frame.
    """

    take: Take
    said: list[str] = field(default_factory=list)
    is_malformed: bool = False
    _rest: bytes = b""

    def __call__(self, piece: bytes) -> None:
        """Take a piece."""
        *blocks, self._rest = (self._rest + piece).split(b"\n\n")
        for block in blocks:
            if not self._take(block):
                self.is_malformed = True

    def _take(self, block: bytes) -> bool:
        lines = block.split(b"\n")
        match lines:
            case [number, kind, envelope] if number[:4] == b"id: " and kind[:7] == b"event: " and envelope[:6] == b"data: ":
                if not number[4:].isdigit():
                    return False
                self.take(int(number[4:]), kind[7:], envelope[6:])
                return True
            case [kind, envelope] if kind[:7] == b"event: " and envelope[:6] == b"data: ":
                self.said.append(kind[7:].decode())
                return True
            case _:
                return all(line[:1] == b":" or line[:7] == b"retry: " for line in lines)
