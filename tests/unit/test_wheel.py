# SPDX-License-Identifier: Apache-2.0
"""The package that pipx installs: what is in it, and that it works without the checkout."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.hop.version import digest
from tests.inventories import nobody_listens

REPOSITORY = Path(__file__).parents[2]
SHIPPED = ("bench", "ansible", "bpf", "inventories")


def tracked(*folders: str) -> list[Path]:
    """Return the files in folders of the checkout that are no tool's leavings."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *folders],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    return [Path(name) for name in listed if name and (REPOSITORY / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The wheel, built from a copy of what a clean checkout has."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a checkout")
    folder = tmp_path_factory.mktemp("wheel")
    for file in tracked(*SHIPPED, "pyproject.toml", "README.md", "LICENSES", ".gitignore"):
        (folder / "src" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / file, folder / "src" / file)
    # What tools leave in a checkout that was worked in.
    for name in ("bench/__pycache__", "ansible/lookup_plugins/__pycache__"):
        (folder / "src" / name).mkdir(exist_ok=True)
        (folder / "src" / name / "old.cpython-311.pyc").write_bytes(b"")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps"),
            *("--no-index", "--wheel-dir", str(folder), str(folder / "src")),
        ],
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        check=True,
        timeout=120,
    )
    yield next(folder.glob("hopbench-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The wheel's files where no checkout is; its dependencies are those of this environment."""
    folder = wheel.parent / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def bench(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command from a folder in which there is nothing."""
    cwd = installed.parent / "elsewhere"
    cwd.mkdir(exist_ok=True)
    # The wheel's first, then the dependencies: an editable install's .pth is in effect nowhere.
    paths = [str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    program = f"import sys; sys.path[:0] = {paths!r}; from bench.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-S", "-P", "-c", program, *arguments],
        cwd=cwd,
        env={
            **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            "XDG_STATE_HOME": str(installed.parent / "state"),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_it_has_what_is_needed_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    found = {name for name in names if ".dist-info/" not in name}
    package = {str(file) for file in tracked("bench")}
    data = {f"bench/_data/{file}" for file in tracked("ansible", "bpf", "inventories")}
    assert found == package | data
    assert "bench/sweeps/default.toml" in found
    licences = {Path(name).name for name in names if "/licenses/" in name}
    assert licences == {"Apache-2.0.txt", "GPL-2.0-only.txt"}


def test_every_file_is_as_in_the_checkout(installed: Path) -> None:
    for file in tracked(*SHIPPED):
        place = file if file.parts[0] == "bench" else Path("bench/_data") / file
        assert (installed / place).read_bytes() == (REPOSITORY / file).read_bytes(), file


def test_its_agent_is_the_checkouts(installed: Path) -> None:
    """Hosts that one of them has deployed take the other's word."""
    program = "from bench.hop.version import digest; print(digest())"
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", program],
        cwd=installed.parent,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == digest()


def test_it_works_from_another_folder(installed: Path) -> None:
    version = bench(installed, "--version")
    assert version.stdout.startswith("hopbench, version "), version.stderr
    listed = bench(installed, "list")
    assert listed.returncode == 0 and "no run" in listed.stderr
    # The default sweep, and an inventory by its name: files of the package.
    planned = bench(installed, "run", "--dry-run", "-i", "physical.example")
    assert planned.returncode == 0, planned.stderr
    assert "socat, 3 hops" in planned.stdout
    unknown = bench(installed, "doctor", "-i", "nowhere")
    assert unknown.returncode == 1 and "no inventory 'nowhere'" in unknown.stderr


def test_the_playbooks_are_found_and_whole(installed: Path) -> None:
    """Ansible reads the installed playbooks with their roles and plugins."""
    ansible = installed / "bench" / "_data" / "ansible"
    inventory = installed / "bench" / "_data" / "inventories" / "physical.example.ini"
    for playbook in ("deploy.yml", "undeploy.yml"):
        done = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "ansible-playbook"), "--syntax-check"),
                *("-i", str(inventory), str(ansible / playbook)),
            ],
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ansible / "ansible.cfg"),
                "ANSIBLE_HOME": str(installed.parent / "ansible"),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr


# --- as a command ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command(wheel: Path) -> Path:
    """`bench` in an environment of its own, as pipx makes it; dependencies are this one's."""
    folder = wheel.parent / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(python), "install", "-q"),
            *("--no-deps", "--no-index", str(wheel)),
        ],
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        check=True,
        timeout=120,
    )
    # What is named in a .pth is searched, and a .pth in there is in effect nowhere.
    (site,) = folder.glob("lib/python*/site-packages")
    paths = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in dict.fromkeys(paths)))
    for program in Path(sys.executable).parent.glob("ansible*"):
        (folder / "bin" / program.name).symlink_to(program)
    return folder / "bin" / "bench"


def run_command(command: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command with as little of this environment as a user's shell would have."""
    cwd = command.parent.parent / "elsewhere"
    cwd.mkdir(exist_ok=True)
    home = command.parent.parent / "home"
    return subprocess.run(
        [str(command), *arguments],
        cwd=cwd,
        env={"PATH": os.defpath, "HOME": str(home), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_command_is_the_packages_own(command: Path) -> None:
    assert "doctor" in run_command(command, "--help").stdout
    planned = run_command(command, "run", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "xdp (native), 5 hops" in planned.stdout


@pytest.mark.parametrize("word", ["deploy", "undeploy", "doctor"])
def test_the_command_goes_to_every_host(command: Path, tmp_path: Path, word: str) -> None:
    """Where nobody listens: it has found its playbook, or its programs, and names each host."""
    names = ("alpha", "bravo", "charlie", "delta")
    with nobody_listens(tmp_path, names) as inventory:
        done = run_command(command, word, "-i", str(inventory))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    if word == "doctor":
        said = [line.split(":")[:2] for line in done.stdout.splitlines()]
        assert said == [[f"PROBLEM {name}", " SSH"] for name in names]
    else:
        last = done.stderr.splitlines()[-1]
        assert last.startswith("bench: alpha: connect: no SSH connection; "), done.stderr
        assert all(f"{name}: connect: no SSH connection" in last for name in names)


# Names of modules that are not those of their distributions.
_DISTRIBUTIONS = {
    "ansible": "ansible-core",
    "ansible_runner": "ansible-runner",
    "yaml": "pyyaml",
}


def test_it_says_what_it_imports() -> None:
    """pipx installs what pyproject.toml names: nothing may be there by luck."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    named = {re.match(r"[\w-]+", each)[0] for each in project["dependencies"]}  # type: ignore[index]
    imported = set()
    for file in tracked("bench"):
        if file.suffix != ".py" or file.parts[1] == "hop":
            continue
        for node in ast.walk(ast.parse((REPOSITORY / file).read_text())):
            if isinstance(node, ast.Import):
                imported |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.partition(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"bench"}
    assert {_DISTRIBUTIONS.get(name, name) for name in foreign} <= named


def test_what_is_installed_here_is_recent_enough() -> None:
    """The lowest versions that pyproject.toml names are not above those the tests run with."""
    from packaging.requirements import Requirement

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for line in project["dependencies"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(importlib.metadata.version(wanted.name)), line
