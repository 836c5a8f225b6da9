# SPDX-License-Identifier: Apache-2.0
"""Write what hopbench is made with as a CycloneDX bill of materials: `sbom.py FILE`.

Python packages are the pins of the lock files, for every Python and system. Debian's are those that
the lists of packages name, with their versions on this machine, and without one where they are not
installed. Scope: `required` is what runs a chain, `excluded` what only builds and tests.
The same locks, lists and versions always give the same file.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.contrib.hash.factories import HashTypeFactory
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, Property, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from pip_requirements_parser import RequirementsFile

ROOT = Path(__file__).resolve().parent.parent
LOCK, RUN_LOCK = ROOT / "requirements.lock", ROOT / "requirements-bench.lock"
# Whose packages a chain needs, and what those of tools/ are for is in their first lines.
LISTS = ("ansible/packages/*.txt", "tools/*-packages.txt")
_FORMAT = "${db:Status-Status} ${Package} ${Version} ${Architecture}\n"
# Debian's name for what a package of any architecture has.
_OF_ALL = "all"


def package_names(text: str) -> list[str]:
    """Return the packages that a list names."""
    return [word for line in text.splitlines() for word in line.partition("#")[0].split()]


def python_packages() -> Iterator[Component]:
    """Yield the pins of the lock file."""
    needed = {pin.name for pin in RequirementsFile.from_file(str(RUN_LOCK)).requirements}
    for pin in RequirementsFile.from_file(str(LOCK)).requirements:
        version = str(pin.specifier).removeprefix("==")
        purl = PackageURL("pypi", None, pin.name, version)
        hashes = [HashTypeFactory().from_composite_str(each) for each in pin.hash_options]
        files = ExternalReference(
            type=ExternalReferenceType.DISTRIBUTION,
            url=XsUri(f"https://pypi.org/project/{pin.name}/{version}/#files"),
            hashes=hashes,
        )
        marker = [Property(name="hopbench:marker", value=str(pin.marker))] if pin.marker else []
        yield Component(
            type=ComponentType.LIBRARY,
            name=pin.name,
            version=version,
            purl=purl,
            bom_ref=purl.to_string(),
            scope=ComponentScope.REQUIRED if pin.name in needed else ComponentScope.EXCLUDED,
            external_references=[files],
            properties=marker,
        )


def installed(names: list[str]) -> dict[str, tuple[str, str]]:
    """Return {package: (version, architecture)} of those that are installed here."""
    done = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={_FORMAT}", *names],
        capture_output=True,
        text=True,
        check=False,  # it fails when one is not known
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    return {row[1]: (row[2], row[3]) for row in rows if row[0] == "installed"}


def debian_packages() -> Iterator[Component]:
    """Yield the packages of the lists."""
    system = platform.freedesktop_os_release()
    vendor, release = system["ID"], f"{system['ID']}-{system.get('VERSION_ID', 'unstable')}"
    files = sorted(path for pattern in LISTS for path in ROOT.glob(pattern))
    lists = {path.relative_to(ROOT).as_posix(): package_names(path.read_text()) for path in files}
    versions = installed([name for names in lists.values() for name in names])
    for file, names in lists.items():
        for name in names:
            version, architecture = versions.get(name, (None, _OF_ALL))
            qualifiers = {"arch": architecture, "distro": release} if version else None
            purl = PackageURL("deb", vendor, name, version, qualifiers)
            needed = file.startswith("ansible/")
            yield Component(
                type=ComponentType.LIBRARY if name.startswith("lib") else ComponentType.APPLICATION,
                name=name,
                version=version,
                purl=purl,
                bom_ref=purl.to_string(),
                scope=ComponentScope.REQUIRED if needed else ComponentScope.EXCLUDED,
                properties=[Property(name="hopbench:list", value=file)],
            )


def bill() -> Bom:
    """Return hopbench with all of its components."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    source = (ROOT / "bench" / "__init__.py").read_text()
    version = re.findall(r'^__version__ = "(.+)"$', source, re.MULTILINE)[0]
    purl = PackageURL("pypi", None, project["name"], version)
    own = Component(
        type=ComponentType.APPLICATION,
        name=project["name"],
        version=version,
        description=project["description"],
        licenses=[LicenseFactory().make_from_string(project["license"])],
        purl=purl,
        bom_ref=purl.to_string(),
    )
    components = [*python_packages(), *debian_packages()]
    bom = Bom(components=components)
    bom.metadata.component = own
    needed = [each for each in components if each.scope is ComponentScope.REQUIRED]
    bom.register_dependency(own, needed)
    # No time and no chance: what it lists is what it is named by.
    bom.metadata.timestamp = None  # type: ignore[assignment]
    listed = "\n".join(sorted(each.bom_ref.value or "" for each in components))
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, f"{own.bom_ref.value}\n{listed}")
    return bom


def text_of(bom: Bom) -> str:
    """Return a bill as JSON. Raises ValueError unless that is what the schema asks for."""
    text = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        raise ValueError(f"not CycloneDX 1.6: {wrong}")
    return text


def main(arguments: list[str]) -> int:
    """Write the bill to the file named."""
    (name,) = arguments
    bom = bill()
    text = text_of(bom)
    file = Path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    print(f"{file}: {len(bom.components)} components")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
