"""Tokens of an issuer: only its own, for us, in time, under a pinned algorithm, with a realm and a scope."""

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.credentials import tokens
from app.credentials.tokens import Issuer, Tokens
from app.errors import Unauthenticated

pytestmark = pytest.mark.anyio

ISSUER = Issuer("https://issuer.test", "suricate", "https://issuer.test/jwks", ("RS256", "ES256"), "realm", "scope")
KEY, OTHER_KEY, EC_KEY = (
    rsa.generate_private_key(65_537, 2048),
    rsa.generate_private_key(65_537, 2048),
    ec.generate_private_key(ec.SECP256R1()),
)
CLAIMS = {"iss": ISSUER.name, "aud": ISSUER.audience, "sub": "ann", "realm": "acme", "scope": "read write"}


class Published:
    """The issuer's keys behind its URL."""

    def __init__(self, **named: Any) -> None:
        self.named = named
        self.asked = 0
        self.body: bytes | None = None

    async def fetch(self, url: str) -> bytes:
        assert url == ISSUER.jwks_url
        self.asked += 1
        return (
            self.body if self.body is not None else orjson.dumps({"keys": [jwk(name, key) for name, key in self.named.items()]})
        )


def jwk(name: str, key: Any) -> dict[str, Any]:
    """Write a public key as issuers publish it."""
    algorithm = jwt.algorithms.ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else jwt.algorithms.RSAAlgorithm
    public: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    return public | {"kid": name, "use": "sig"}


def token(key: Any = KEY, algorithm: str = "RS256", kid: str = "one", *, without: str = "", **claims: Any) -> str:
    """Sign a token."""
    whole = CLAIMS | {"exp": time.time() + 600} | claims  # noqa: TID251 - a token's own clock
    return jwt.encode({name: value for name, value in whole.items() if name != without}, key, algorithm, headers={"kid": kid})


async def test_good_token_speaks_for_its_realm() -> None:
    caller = await Tokens(ISSUER, Published(one=KEY).fetch).bearer(token())

    assert (caller.realm, caller.credential, caller.scope) == ("acme", "jwt:ann", "write")
    assert caller.expires_at is not None


async def test_other_algorithm_that_is_pinned_is_good_too() -> None:
    caller = await Tokens(ISSUER, Published(one=EC_KEY).fetch).bearer(token(EC_KEY, "ES256", scope=["admin"]))

    assert caller.scope == "admin"


def public_pem() -> str:
    return KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


BAD: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "no token": lambda: "x.y.z",
    "another's signature": lambda: token(OTHER_KEY),
    "an algorithm that is not pinned": lambda: token(algorithm="RS512"),
    "no signature": lambda: jwt.encode(CLAIMS | {"exp": 4e9}, "", "none", headers={"kid": "one"}),
    "the public key as a shared secret": lambda: forged(),
    "a key that is not published": lambda: token(kid="two"),
    "ended": lambda: token(exp=time.time() - 60),  # noqa: TID251
    "not yet": lambda: token(nbf=time.time() + 600),  # noqa: TID251
    "for another audience": lambda: token(aud="other"),
    "of another issuer": lambda: token(iss="https://other.test"),
    "without an end": lambda: token(without="exp"),
    "without a subject": lambda: token(without="sub"),
    "without an audience": lambda: token(without="aud"),
    "without a realm": lambda: token(without="realm"),
    "a realm that is none": lambda: token(realm="*"),
    "a realm that is no text": lambda: token(realm=["acme"]),
    "without scopes": lambda: token(without="scope"),
    "scopes that are unknown": lambda: token(scope="root"),
    "scopes of another kind": lambda: token(scope={"admin": True}),
}


def forged() -> str:
    """Sign with the published key as if it were a secret that both sides know."""

    def part(value: Any) -> bytes:
        return urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=")

    head = part({"alg": "HS256", "typ": "JWT", "kid": "one"}) + b"." + part(CLAIMS | {"exp": 4e9})
    signature = hmac.digest(public_pem().encode(), head, "sha256")
    return (head + b"." + urlsafe_b64encode(signature).rstrip(b"=")).decode()


@pytest.mark.parametrize("kind", BAD)
async def test_bad_token_is_refused(kind: str) -> None:
    with pytest.raises(Unauthenticated):
        await Tokens(ISSUER, Published(one=KEY).fetch).bearer(BAD[kind]())


async def test_keys_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    published = Published(one=KEY)
    asked = Tokens(ISSUER, published.fetch)

    await asked.bearer(token())
    await asked.bearer(token())
    for kid in ("made up", "this one too"):
        with pytest.raises(Unauthenticated):
            await asked.bearer(token(kid=kid))

    assert published.asked == 1


async def test_new_key_of_the_issuer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "AGAIN_SECONDS", -1.0)
    published = Published(one=KEY)
    asked = Tokens(ISSUER, published.fetch)
    await asked.bearer(token())

    published.named["two"] = OTHER_KEY

    assert (await asked.bearer(token(OTHER_KEY, kid="two"))).realm == "acme"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"keys":[{"kty":"oct","k":"AA","kid":"one"}]}', b'{"keys":"x"}', b"\xff"]
)
async def test_issuer_that_sends_nonsense_makes_no_token_good_and_no_mistake(
    monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(tokens, "AGAIN_SECONDS", -1.0)
    published = Published(one=KEY)
    asked = Tokens(ISSUER, published.fetch)
    await asked.bearer(token())

    published.body = body
    with pytest.raises(Unauthenticated):
        await asked.bearer(token(kid="two"))

    assert (await Tokens(ISSUER, Published(one=KEY).fetch).bearer(token())).realm == "acme"
