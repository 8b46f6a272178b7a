"""The packages of the requirement files, as they are pinned, and what their own metadata says of them."""

import re
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

_ENTRY = re.compile(r"^(?P<requirement>[a-z].*?)(?P<hashes>(?: \\\n +--hash=sha256:\w+)+)$", re.MULTILINE)
_HASH = re.compile(r"sha256:(\w+)")
_NAME = re.compile(r"[\w.+-]+( (OR|AND) [\w.+-]+)*")
_NAMES = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "isc license": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
}
"""What metadata calls licences, for what SPDX does; a name that fits several stands for none."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """One package of a requirement file.

    Args:
        hashes: SHA-256 of each file that may be installed.
        is_for_here: whether this Python on this system needs it.
    """

    name: str
    version: str
    hashes: tuple[str, ...]
    is_for_here: bool

    @property
    def metadata(self) -> metadata.PackageMetadata | None:
        """What the installed package says of itself; None where it is not installed in this version."""
        try:
            found = metadata.distribution(self.name)
        except metadata.PackageNotFoundError:
            return None
        return found.metadata if found.version == self.version else None


def read(text: str) -> list[Pinned]:
    """Read a requirement file, in its order."""
    return [_pinned(Requirement(entry["requirement"]), entry["hashes"]) for entry in _ENTRY.finditer(text)]


def read_file(name: str) -> list[Pinned]:
    """Read a requirement file of the project."""
    return read((ROOT / name).read_text(encoding="utf-8"))


def licence(told: metadata.PackageMetadata) -> str | None:
    """Return the licence that a package's metadata states, by the name SPDX has for it; None: none that is known."""
    stated = _first(told, "License-Expression") or _known(_first(told, "License"))
    if stated:
        return stated
    classified = [line.rpartition(" :: ")[2] for line in told.get_all("Classifier", []) if line.startswith("License :: ")]
    return " AND ".join(known for line in classified if (known := _known(line))) or None


def _first(told: metadata.PackageMetadata, name: str) -> str:
    found: list[str] = told.get_all(name, [""])
    return found[0].strip()


def _known(name: str) -> str | None:
    return _NAMES.get(name.lower()) or (name if _NAME.fullmatch(name) else None)


def _pinned(requirement: Requirement, hashes: str) -> Pinned:
    [version] = [specifier.version for specifier in requirement.specifier]
    is_for_here = requirement.marker is None or requirement.marker.evaluate()
    return Pinned(canonicalize_name(requirement.name), version, tuple(_HASH.findall(hashes)), is_for_here)
