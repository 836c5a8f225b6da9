# SPDX-License-Identifier: Apache-2.0
"""`make sbom`: valid, complete, and the same from one time to the next."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from pip_requirements_parser import RequirementsFile

REPOSITORY = Path(__file__).parents[2]
LOCK = REPOSITORY / "requirements.lock"


def write(file: Path) -> str:
    """Make the bill and return it."""
    command = [sys.executable, str(REPOSITORY / "tools" / "sbom.py"), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    text = file.read_text()
    assert done.stdout == f"{file}: {len(json.loads(text)['components'])} components\n"
    return text


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bill of this machine."""
    return write(tmp_path_factory.mktemp("sbom") / "deep" / "sbom.cdx.json")


@pytest.fixture(scope="module")
def of_kind(text: str) -> dict[str, list[dict[str, Any]]]:
    """{kind of package URL: components}."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in json.loads(text)["components"]:
        found.setdefault(PackageURL.from_string(each["purl"]).type, []).append(each)
    return found


def test_it_is_what_the_schema_asks_for(text: str) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    spoiled = json.loads(text)
    del spoiled["components"][0]["name"]
    assert validator.validate_str(json.dumps(spoiled)) is not None


def test_it_is_the_same_again(text: str, tmp_path: Path) -> None:
    assert write(tmp_path / "again.json") == text


def test_every_pin_with_its_hashes(of_kind: dict[str, list[dict[str, Any]]]) -> None:
    pins = RequirementsFile.from_file(str(LOCK)).requirements
    wanted = {(pin.name, str(pin.specifier)[2:], frozenset(pin.hash_options)) for pin in pins}
    found = {
        (
            each["name"],
            each["version"],
            frozenset(
                f"sha256:{digest['content']}"
                for reference in each["externalReferences"]
                for digest in reference["hashes"]
            ),
        )
        for each in of_kind["pypi"]
    }
    assert found == wanted
    scopes = {each["name"]: each["scope"] for each in of_kind["pypi"]}
    assert (scopes["paramiko"], scopes["ruff"]) == ("required", "excluded")


def test_every_package_of_a_list_with_the_version_that_is_here(
    of_kind: dict[str, list[dict[str, Any]]],
) -> None:
    lists = [*REPOSITORY.glob("ansible/packages/*.txt"), *REPOSITORY.glob("tools/*-packages.txt")]
    names = {
        word
        for file in lists
        for line in file.read_text().splitlines()
        for word in line.partition("#")[0].split()
    }
    assert {each["name"] for each in of_kind["deb"]} == names
    for each in of_kind["deb"]:
        query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", each["name"]]
        said = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
        version = said[1] if said[:1] == ["installed"] else None
        assert each.get("version") == version, each["name"]
        purl = PackageURL.from_string(each["purl"])
        assert (purl.name, purl.version) == (each["name"], version)
        assert ("distro" in purl.qualifiers) == (version is not None)
    scopes = {each["name"]: each["scope"] for each in of_kind["deb"]}
    assert (scopes["nginx"], scopes["chromium"]) == ("required", "excluded")


def test_hopbench_depends_on_what_is_required(text: str) -> None:
    bill = json.loads(text)
    own = bill["metadata"]["component"]
    graph = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    required = {each["bom-ref"] for each in bill["components"] if each["scope"] == "required"}
    assert set(graph[own["bom-ref"]]) == required
    assert own["name"] == "hopbench"
