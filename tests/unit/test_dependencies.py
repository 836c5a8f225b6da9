# SPDX-License-Identifier: Apache-2.0
"""What hopbench is made with: Python packages locked by hashes, Debian's named in one place."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from pip_requirements_parser import RequirementsFile

from bench.lab import preflight

REPOSITORY = Path(__file__).parents[2]
LOCK, RUN_LOCK = REPOSITORY / "requirements.lock", REPOSITORY / "requirements-bench.lock"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())

# Python


def pins(lock: Path) -> set[tuple[str, str, frozenset[str]]]:
    """Return (name, exact version, hashes) of each pin; nothing else may be in a lock."""
    parsed = RequirementsFile.from_file(str(lock))
    assert not parsed.invalid_lines and not parsed.options
    found = set()
    for pin in parsed.requirements:
        assert re.fullmatch(r"==[0-9][\w.+!]*", str(pin.specifier)), pin.name
        assert pin.hash_options, pin.name
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in pin.hash_options), pin
        found.add((pin.name, str(pin.specifier)[2:], frozenset(pin.hash_options)))
    return found


@pytest.mark.parametrize("lock", [LOCK, RUN_LOCK], ids=lambda path: path.name)
def test_every_pin_has_a_version_and_hashes(lock: Path) -> None:
    assert len(pins(lock)) > 40


def test_bench_gets_the_versions_that_the_tests_run_with() -> None:
    assert pins(RUN_LOCK) < pins(LOCK)


def test_what_pyproject_asks_for_is_locked() -> None:
    project = PROJECT["project"]
    needed = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    for lock, lines in (
        (LOCK, [*needed, *project["optional-dependencies"]["dev"]]),
        (RUN_LOCK, needed),
    ):
        locked = {(name.lower(), version) for name, version, _ in pins(lock)}
        for wanted in map(Requirement, lines):
            versions = [version for name, version in locked if name == wanted.name.lower()]
            assert versions, f"{wanted} is not in {lock.name}: make lock"
            assert all(map(wanted.specifier.contains, versions)), wanted


def tracked() -> list[Path]:
    """Return the checkout's files that are text of ours, results and these tests aside."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [
        REPOSITORY / name
        for name in listed.stdout.split("\0")
        if name and not re.match(r"results/|LICENSES/|tests/unit/|.*\.(lock|svg|png|csv)$", name)
        if (REPOSITORY / name).is_file()
    ]


def commands(program: str) -> list[tuple[str, list[str]]]:
    """Return (file, words) of each call of a program in the checkout, up to the line's end."""
    found = []
    for file in tracked():
        # Lines that go on are one.
        text = file.read_text(errors="replace").replace("\\\n", " ")
        for call in re.findall(rf"(?m)^(?!\s*#).*?\b{program}\b(.*)$", text):
            found.append((file.relative_to(REPOSITORY).as_posix(), call.split()))
    return found


def test_locks_are_installed_by_their_hashes() -> None:
    """pip takes them for a suggestion otherwise, when one of them is missing."""
    calls = [
        (file, words) for file, words in commands("pip install") if "-r" in words or "-c" in words
    ]
    assert {file for file, _ in calls} >= {
        "containers/controller/install.sh",
        "docs/controller.md",
        "tools/setup.sh",
    }
    assert [file for file, words in calls if "--require-hashes" not in words] == []


# Debian

LISTS = sorted(
    [*REPOSITORY.glob("ansible/packages/*.txt"), *REPOSITORY.glob("tools/*-packages.txt")]
)


def names(file: Path) -> list[str]:
    """Return the packages that a list names."""
    return [
        word for line in file.read_text().splitlines() for word in line.partition("#")[0].split()
    ]


def test_each_package_is_named_once() -> None:
    counts = Counter(name for file in LISTS for name in names(file))
    assert [name for name, count in counts.items() if count > 1] == []
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name) for name in counts)
    assert {"nginx", "siege", "socat", "nftables", "openssh-server", "debootstrap"} <= set(counts)


@pytest.mark.parametrize("file", LISTS, ids=lambda path: path.name)
def test_a_list_is_in_order_and_says_what_it_is_for(file: Path) -> None:
    assert file.read_text().startswith("# ")
    assert names(file) == sorted(names(file))


def test_every_list_is_read_by_something() -> None:
    scripts = [file for file in tracked() if file.suffix in (".sh", ".yml")]
    readers = "\n".join(file.read_text(errors="replace") for file in scripts)
    # make setup-vm and make setup-containers: the list of the option's name.
    assert 'setup_packages "tools/${1#--}-packages.txt"' in readers
    for file in (each for each in LISTS if each.parent.name == "tools"):
        option = f"--{file.stem.removesuffix('-packages')}"
        assert file.stem in readers or re.search(rf"(?m)^{option} \||\| {option}\)$", readers), file


def test_scripts_install_what_lists_name() -> None:
    """No package is named on a command line: what is to be installed comes from elsewhere."""
    named = {name for file in LISTS for name in names(file)}
    calls = [
        (file, words)
        for file, words in [*commands("apt-get"), *commands("apt")]
        if "install" in words and not file.startswith(("docs/", "bench/", "tests/"))
    ]
    assert {file for file, _ in calls} >= {
        "ansible/roles/common/files/packages.sh",
        "containers/controller/install.sh",
        "containers/node/install.sh",
        "tools/box.sh",
        "tools/setup.sh",
    }
    for file, words in calls:
        assert not named & set(words), file
    # Its Python may be what a host lacks to be told of lists.
    role = (REPOSITORY / "ansible/roles/common/tasks/main.yml").read_text()
    added = re.findall(r"(?m)^\s+add \{\{.*\}\} (.*)$", role)
    assert added == ["python3"] and added[0] in names(REPOSITORY / "ansible/packages/common.txt")


def test_what_remedies_name_is_in_a_list() -> None:
    named = {name for file in LISTS for name in names(file)}
    # util-linux is essential: no Debian is without it.
    assert set(preflight._TOOLS.values()) - {"util-linux"} <= named
    for file, words in commands("apt-get install"):
        if file.startswith(("bench/", "tests/browser/")):
            packages = [re.sub(r"\W+$", "", word) for word in words if re.match(r"[a-z]", word)]
            assert set(packages) <= named, file
