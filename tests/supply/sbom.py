"""The bill of materials: what is installed with Suricate, as CycloneDX has it, made of the hashed requirement file alone."""

from importlib import metadata
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.supply import pinned
from tests.supply.licences import STATED
from tests.supply.pinned import PROJECT, Pinned

_KIND = "py" + "pi"  # of package URLs; no host: which index it comes from is the installer's to say
_LICENCES = LicenseFactory()


def write(path: Path) -> int:
    """Write the bill, and return how many packages it lists."""
    packages = pinned.read_file("requirements.txt")
    path.write_text(text(packages) + "\n", encoding="utf-8")
    return len(packages)


def text(packages: list[Pinned]) -> str:
    """Return the bill of some packages as JSON."""
    project = PROJECT["project"]
    root = Component(
        name=project["name"],
        version=project["version"],
        type=ComponentType.APPLICATION,
        bom_ref=project["name"],
        licenses=[_LICENCES.make_from_string(project["license"])],
    )
    components = {one.name: _component(one) for one in packages}
    bom = Bom(components=components.values())
    bom.metadata.component = root
    bom.register_dependency(root, _among(components, project["dependencies"]))
    for name, component in components.items():
        bom.register_dependency(component, _among(components, _requires(name)))
    written: str = JsonV1Dot6(bom).output_as_string(indent=2)
    return written


def _component(one: Pinned) -> Component:
    told = one.metadata
    licence = STATED.get(one.name) or (None if told is None else pinned.licence(told))
    return Component(
        name=one.name,
        version=one.version,
        type=ComponentType.LIBRARY,
        bom_ref=one.name,
        purl=PackageURL(_KIND, name=one.name, version=one.version),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=content) for content in one.hashes],
        licenses=[] if licence is None else [_LICENCES.make_from_string(licence)],
    )


def _requires(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def _among(components: dict[str, Component], requirements: list[str]) -> list[Component]:
    """Return those that are asked for and are on the bill; what only an extra asks for may be there for another reason."""
    parsed = [Requirement(requirement) for requirement in requirements]
    names = {canonicalize_name(one.name) for one in parsed if one.marker is None or one.marker.evaluate({"extra": ""})}
    return [components[name] for name in sorted(names & components.keys())]
