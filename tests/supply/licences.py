"""The check of licences: each package that is installed here has one that `pyproject.toml` allows."""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from license_expression import ExpressionError, LicenseSymbol, ParseError, get_spdx_licensing

from tests.supply import pinned
from tests.supply.pinned import PROJECT, Pinned

_RULES = PROJECT["tool"]["suricate"]["licences"]
ALLOWED: AbstractSet[str] = frozenset(_RULES["allowed"])
STATED: Mapping[str, str] = _RULES["stated"]
"""Licences of packages whose metadata does not state one by a name that is known."""
_SPDX = get_spdx_licensing()


def faults(packages: Iterable[Pinned]) -> list[str]:
    """Return a line for each package that may not be used."""
    return [f"{one.name} {one.version}: {fault}" for one in packages if one.is_for_here and (fault := _fault(one))]


def is_allowed(expression: str, allowed: AbstractSet[str] = ALLOWED) -> bool:
    """Tell whether an SPDX expression can be met by licences on the list: all of an AND, one of an OR."""
    try:
        return _is_met(_SPDX.parse(expression), allowed)
    except (ExpressionError, ParseError):
        return False


def _is_met(parsed: object, allowed: AbstractSet[str]) -> bool:
    match parsed:
        case LicenseSymbol(key=key):
            return key in allowed
        case _SPDX.AND(args=args):
            return all(_is_met(part, allowed) for part in args)
        case _SPDX.OR(args=args):
            return any(_is_met(part, allowed) for part in args)
        case _:  # an exception to a licence is one that nobody has looked at
            return False


def _fault(one: Pinned) -> str | None:
    told = one.metadata
    if told is None:
        return "it is not installed in this version, so that its licence could not be read"
    expression = STATED.get(one.name) or pinned.licence(told)
    if expression is None:
        return "it states no licence that is known"
    return None if is_allowed(expression) else f"{expression} is not on the list of licences"
