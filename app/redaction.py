"""The one redactor: takes secrets out of what the service itself writes: logs, failures in events, problem documents, spans.

A secret is found by its value, where it is known, and by its form, where it is not. What a model says and what callers send is
data and never comes here, nor does any delta. What surprises: this is state of the process, like the logs that it guards,
because a traceback does not know whose room it comes from.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import orjson

MARK: Final = "[redacted]"
LEAST_CHARACTERS: Final = 8  # of a value that is looked for; a shorter one would take words out of every line
MOST_PASSING: Final = 256  # values that came later, e.g. tenants' keys as they are opened; the oldest are forgotten

_VALUE: Final = r"""[^\s&"'\\,;<>]{8,}"""
_FORMS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = tuple(
    (sign, re.compile(f"({before}){secret}", re.DOTALL | re.IGNORECASE))
    for sign, before, secret in (
        ("bearer ", r"\bbearer ", r"[\w.~+/=-]{8,}"),
        ("basic ", r"\bbasic ", r"[\w.~+/=-]{8,}"),
        ("ticket=", "ticket=", _VALUE),
        ("token=", "token=", _VALUE),
        ("secret=", "secret=", _VALUE),
        ("password=", "password=", _VALUE),
        ("key=", r"(?:\b|_|api)key=", _VALUE),
        ("api-key", r"""api-key[\\"']*\s*[:=]\s*[\\"']*""", _VALUE),
        ("://", "://", r"""[^\s/@"'\\<>]+(?=@)"""),
        ("sk-", "", r"\bsk-[\w-]{8,}"),
        ("sur_", "", r"\bsur_[\w-]{8,}"),  # our own keys, and tickets
        ("sut_", "", r"\bsut_[\w-]{8,}"),
        ("whsec_", "", r"\bwhsec_[\w+/=-]{8,}"),
        ("ghp_", "", r"\bghp_\w{8,}"),
        ("eyj", "", r"\beyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*"),
        ("aiza", "", r"\bAIza[\w-]{30,}"),
        ("akia", "", r"\bAKIA[A-Z0-9]{16}\b"),
        ("-----begin", "", r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"),
    )
)
"""What secrets look like, and what stands before them; each with a part of it in lower case, so that most texts are done with
after a glance."""


class Redactor:
    """Knows values, and what secrets look like."""

    def __init__(self) -> None:
        self._known: dict[str, None] = {}
        self._passing: OrderedDict[str, None] = OrderedDict()

    def learn(self, values: Iterable[str]) -> None:
        """Take note of secrets that hold for as long as the process lives."""
        for value in values:
            self._known |= dict.fromkeys(_spellings(value))

    def learn_passing(self, value: str) -> None:
        """Take note of a secret that others will follow; of these the newest are known."""
        for spelling in _spellings(value):
            self._passing[spelling] = None
            self._passing.move_to_end(spelling)
        while len(self._passing) > MOST_PASSING:
            self._passing.popitem(last=False)

    def redacted(self, text: str) -> str:
        """Return a text without the secrets in it."""
        for value in (*self._known, *self._passing):
            if value in text:
                text = text.replace(value, MARK)
        lower = text.lower()
        for sign, form in _FORMS:
            if sign in lower:
                text = form.sub(rf"\1{MARK}", text)
        return text


REDACTOR: Final = Redactor()
"""The process's own: the logs' and every room's."""
learn = REDACTOR.learn
learn_passing = REDACTOR.learn_passing
redacted = REDACTOR.redacted


def credentials_of(url: str) -> Iterator[str]:
    """Yield what is secret in a URL: its password, or its user where that stands alone, as a token does, and such parameters.

    A password that is also the user's or the database's name is none.
    """
    parts = urlsplit(url)
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    secret = password or user
    if secret not in {user if password else "", parts.path.strip("/")}:
        yield unquote(secret)
    for name, value in parse_qsl(parts.query):
        if name.lower().endswith(("password", "token", "key", "secret")):
            yield value


def credentials_in(headers: Iterable[str]) -> Iterator[str]:
    """Yield what is secret in the values of headers: each as it is, and without its scheme."""
    for value in headers:
        yield value
        yield value.rpartition(" ")[2]


def _spellings(value: str) -> list[str]:
    """Return a value as it may stand in a text, in JSON or in a URL."""
    if len(value) < LEAST_CHARACTERS:
        return []
    return [value, orjson.dumps(value).decode()[1:-1], quote(value, safe="")]
