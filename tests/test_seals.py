"""Secrets at rest."""

import base64

import pytest

from app import redaction
from app.errors import CapabilityUnavailable, StartupError, Unsealable
from app.seals import Seals

OLD, NEW = bytes(32), bytes(range(32))


def written(key_id: str, key: bytes) -> str:
    return f"{key_id}:{base64.b64encode(key).decode()}"


def test_what_was_sealed_is_opened_for_its_realm_alone_and_shows_nothing() -> None:
    seals = Seals.parse(written("k1", NEW))

    sealed = seals.seal("sk-canary", realm="a")

    assert seals.open(sealed, realm="a") == "sk-canary"
    assert sealed.startswith("k1.")
    assert "canary" not in sealed
    assert seals.seal("sk-canary", realm="a") != sealed
    with pytest.raises(Unsealable):
        seals.open(sealed, realm="b")


@pytest.mark.parametrize(
    "change", [lambda s: s[:-4] + "AAAA", lambda s: s[:20], lambda s: "k1.", lambda s: "k1.\u00e4", lambda s: ""]
)
def test_what_was_changed_is_not_opened(change: object) -> None:
    seals = Seals.parse(written("k1", NEW))
    assert callable(change)

    with pytest.raises(Unsealable):
        seals.open(change(seals.seal("secret", realm="a")), realm="a")


def test_first_key_seals_and_all_of_them_open() -> None:
    sealed = Seals.parse(written("old", OLD)).seal("secret", realm="a")
    both = Seals.parse(f"{written('new', NEW)}, {written('old', OLD)}")

    assert both.open(sealed, realm="a") == "secret"
    assert both.seal("secret", realm="a").startswith("new.")
    assert (both.is_current(sealed), both.is_current(both.seal("x", realm="a"))) == (False, True)
    with pytest.raises(Unsealable, match="no key 'old'"):
        Seals.parse(written("new", NEW)).open(sealed, realm="a")


def test_what_was_sealed_opened_or_given_to_seal_with_is_known_to_the_redactor() -> None:
    seals = Seals.parse(written("k1", NEW))
    sealed = seals.seal("tenants canary", realm="a")
    others = Seals({"k1": NEW}).seal("another canary", realm="b")
    seals.open(others, realm="b")

    shown = redaction.redacted(f"tenants canary, another canary, {written('', NEW)}, {sealed}")

    assert shown == f"{redaction.MARK}, {redaction.MARK}, :{redaction.MARK}, {sealed}"


def test_without_a_key_nothing_is_sealed_and_it_is_said_how() -> None:
    with pytest.raises(CapabilityUnavailable, match="SURICATE_SEAL_KEYS=<id>:<base64"):
        Seals.parse(None).seal("secret", realm="a")


@pytest.mark.parametrize(
    "text",
    ["x", "k1:", "k1:AAAA", written("k1", NEW)[:-1], written("k 1", NEW), f"{written('a', OLD)},{written('a', NEW)}", ","],
)
def test_keys_of_a_wrong_form_stop_the_start_and_are_not_repeated(text: str) -> None:
    with pytest.raises(StartupError) as caught:
        Seals.parse(text)

    assert "AAAA" not in str(caught.value)
