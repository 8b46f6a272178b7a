"""Secrets at rest: sealed with AES-256-GCM under a key of the environment, and bound to the realm they belong to.

A sealed secret begins with the id of its key. The first key seals and all of them open, so that keys can be changed: a new one
is put in front, everything is sealed anew, and the old one is taken away. Nothing here keeps a secret.
"""

import base64
import binascii
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from app import redaction
from app.errors import CapabilityUnavailable, StartupError, Unsealable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
NO_KEYS: Final = (
    "This server cannot keep secrets: its operator has to set SURICATE_SEAL_KEYS=<id>:<base64 of 32 random bytes>, "
    "for example with `openssl rand -base64 32`."
)

_ITEM: Final = re.compile(r"([A-Za-z0-9_-]{1,32}):([A-Za-z0-9+/]{43}=)")


class Seals:
    """Seals and opens.

    Args:
        keys: of 32 bytes each, by id; the first one seals. None: nothing can be sealed.
    """

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._ciphers = {key_id: _cipher(key) for key_id, key in keys.items()}

    @classmethod
    def parse(cls, text: str | None) -> "Seals":
        """Read keys written as `id:base64`, with commas between them.

        Raises:
            StartupError: they are not of that form, or two have one id; no key is repeated.
        """
        items = [_ITEM.fullmatch(item.strip()) for item in text.split(",")] if text else []
        keys = {item[1]: base64.b64decode(item[2]) for item in items if item is not None}
        if len(keys) < len(items):
            raise StartupError(
                "SURICATE_SEAL_KEYS is not valid: write <id>:<base64 of 32 bytes>, commas between, each id once."
            )
        redaction.learn(item[2] for item in items if item is not None)
        return cls(keys)

    def seal(self, secret: str, *, realm: str) -> str:
        """Seal a secret of a realm.

        Raises:
            CapabilityUnavailable: there is no key.
        """
        if not self._ciphers:
            raise CapabilityUnavailable(NO_KEYS)
        redaction.learn_passing(secret)
        key_id, cipher = next(iter(self._ciphers.items()))
        nonce = os.urandom(NONCE_BYTES)
        return f"{key_id}.{base64.urlsafe_b64encode(nonce + cipher.encrypt(nonce, secret.encode(), realm.encode())).decode()}"

    def open(self, sealed: str, *, realm: str) -> str:
        """Return a secret as it was before it was sealed for this realm.

        Raises:
            Unsealable: the key is not at hand, or this was not sealed with it, or for another realm.
        """
        key_id, _, text = sealed.partition(".")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise Unsealable(f"SURICATE_SEAL_KEYS has no key {key_id[:32]!r}.")
        from cryptography.exceptions import InvalidTag

        try:
            raw = base64.urlsafe_b64decode(text)
            secret = cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], realm.encode()).decode()
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise Unsealable(f"This was not sealed with the key {key_id!r} for this realm.") from error
        redaction.learn_passing(secret)
        return secret

    def is_current(self, sealed: str) -> bool:
        """Tell whether a secret is sealed with the key that seals now."""
        return sealed.partition(".")[0] == next(iter(self._ciphers), None)

    @property
    def has_key(self) -> bool:
        """Whether anything can be sealed."""
        return bool(self._ciphers)


def _cipher(key: bytes) -> "AESGCM":
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # not imported where nothing is sealed

    return AESGCM(key)
