"""Licences that are not on the list are refused; the bill of materials names every package and no address."""

import re
from email.message import Message
from importlib import metadata

import orjson
import pytest

from tests.supply import licences, pinned, sbom
from tests.supply.pinned import Pinned

ALLOWED = {"MIT", "Apache-2.0", "MPL-2.0"}
FILE = """\
orjson==3.11.4 \\
    --hash=sha256:0a \\
    --hash=sha256:0b
pywin32==311 ; sys_platform == 'win32' \\
    --hash=sha256:0c
"""


@pytest.mark.parametrize(
    ("expression", "is_allowed"),
    [
        ("MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("MPL-2.0 AND (Apache-2.0 OR GPL-3.0-only)", True),
        ("GPL-3.0-only", False),
        ("MIT AND AGPL-3.0-or-later", False),
        ("MIT AND (GPL-2.0-only OR SSPL-1.0)", False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("LicenseRef-Proprietary", False),
        ("mine", False),
        ("MIT AND", False),
        ("", False),
    ],
)
def test_licence_is_allowed_if_the_list_can_meet_it(expression: str, *, is_allowed: bool) -> None:
    assert licences.is_allowed(expression, ALLOWED) == is_allowed


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License-Expression": "MIT", "License": "GPL"}, "MIT"),
        ({"License": "Apache License, Version 2.0"}, "Apache-2.0"),
        ({"License": "Copyright (c) somebody\n\nThis OR that."}, None),
        ({"License": "MIT OR Apache-2.0"}, "MIT OR Apache-2.0"),
        ({"Classifier": "License :: OSI Approved :: ISC License (ISCL)", "License": "ISC License"}, "ISC"),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, "MIT"),
        ({}, None),
    ],
)
def test_licence_is_read_off_metadata_as_spdx_names_it(fields: dict[str, str], licence: str | None) -> None:
    assert pinned.licence(_metadata(fields)) == licence


def test_packages_that_may_not_be_used_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(licences, "STATED", {"orjson": "GPL-3.0-only", "pytest": "MIT"})
    here = {name: metadata.version(name) for name in ("orjson", "pytest")}
    packages = [Pinned(name, version, (), is_for_here=True) for name, version in here.items()]
    packages += [Pinned("orjson", "0", (), is_for_here=True), Pinned("elsewhere", "1", (), is_for_here=False)]

    found = licences.faults(packages)

    assert [line.partition(":")[0] for line in found] == [f"orjson {here['orjson']}", "orjson 0"]
    assert "GPL-3.0-only is not on the list" in found[0]


def test_requirement_file_is_read_with_its_hashes_and_systems() -> None:
    assert pinned.read(FILE) == [
        Pinned("orjson", "3.11.4", ("0a", "0b"), is_for_here=True),
        Pinned("pywin32", "311", ("0c",), is_for_here=False),
    ]


def test_bill_lists_every_package_with_its_hashes_and_no_address() -> None:
    packages = pinned.read_file("requirements.txt")

    text = sbom.text(packages)
    bill = orjson.loads(text)

    assert (bill["bomFormat"], bill["specVersion"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "1.6", "suricate")
    assert {(one["name"], one["version"]) for one in bill["components"]} == {(one.name, one.version) for one in packages}
    assert all(one["hashes"] for one in bill["components"])
    assert re.findall(r"https?://(?!cyclonedx\.org/schema/)[^\"]+", text) == []
    assert {"fastapi", "asyncpg"} <= set(next(one["dependsOn"] for one in bill["dependencies"] if one["ref"] == "suricate"))


def test_every_requirement_file_pins_hashes_and_run_asks_for_them() -> None:
    run = (pinned.ROOT / "run").read_text(encoding="utf-8").splitlines()
    installs = [line for line in run if "pip install " in line]

    assert len(installs) > 1
    assert [line for line in installs if "--require-hashes" not in line] == []
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-uv.txt"):
        listed = re.findall(r"^[^ #\n]", (pinned.ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert len(pinned.read_file(name)) == len(listed) > 0


def _metadata(fields: dict[str, str]) -> metadata.PackageMetadata:
    told = Message()
    for name, value in fields.items():
        told[name] = value
    return told  # type: ignore[return-value] # as `importlib.metadata` does
