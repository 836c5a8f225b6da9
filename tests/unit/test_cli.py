# SPDX-License-Identifier: Apache-2.0
"""What a user sees of every command: its help, its exit status, one line for what went wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from bench import cli
from bench.errors import BenchError, HostsError, Interrupted, UsageError

REPOSITORY = Path(__file__).parents[2]
COMMANDS = [
    *("lab", "deploy", "undeploy", "doctor", "run", "list", "show", "compare", "clean"),
    *("trace", "datapath"),
]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a working directory and a memory of its own."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "hopbench"


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put signal handlers back that a command replaces."""
    before = {number: signal.getsignal(number) for number in cli._SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def bench(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        env={**environment, **options},
        capture_output=True,
        text=True,
        check=False,
    )


# Commands


def test_help_names_every_command() -> None:
    done = bench("--help")
    assert (done.returncode, done.stderr) == (0, "")
    listed = [line.split()[0] for line in done.stdout.split("Commands:\n")[1].splitlines()]
    assert set(COMMANDS) <= set(listed)
    assert listed == list(cli._COMMANDS)


def every_command(command: click.Command, words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the words of a command and of all below it."""
    found = [words]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found += every_command(below, (*words, name))
    return found


@pytest.mark.parametrize("words", every_command(cli.cli, ()), ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    for flag in ("--help", "-h"):
        result = CliRunner().invoke(cli.cli, [*words, flag])
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.output.startswith("Usage: ")
        said = result.output.split("\n\n")[1].strip()
        assert said.endswith((".", ".\n")) or "\n" in said


@pytest.mark.parametrize("words", [(), ("lab",)])
def test_a_group_alone_prints_its_help(words: tuple[str, ...]) -> None:
    done = bench(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: ")
    assert len(done.stderr.splitlines()) > 5


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["nope"], 2, "No such command 'nope'."),
        (["lab", "nope"], 2, "No such command 'nope'."),
        (["\x1b[31m"], 2, "No such command"),
        (["--nope"], 2, "No such option"),
        (["run", "--nope"], 2, "No such option"),
        (["list", "extra"], 2, "Got unexpected extra argument (extra)"),
        (["show"], 2, "Missing argument 'RUN'."),
        (["lab", "up", "--hops"], 2, "Option '--hops' requires an argument."),
        (["lab", "up", "--hops", "x"], 2, "Invalid value for '--hops'"),
        (["lab", "up", "--hops", "0"], 2, "a lab has 1 to 64 hops, not 0"),
        (["lab", "up", "--hops", "65"], 2, "a lab has 1 to 64 hops, not 65"),
        (["lab", "up", "--name", "A;b"], 2, "lab name 'A;b' is not 1 to 16 lower-case"),
        (["lab", "up", "--wire", "string"], 2, "Invalid value for '--wire'"),
        (["run", "--dry-run", "--mode", "tcp"], 2, "--mode: unknown mode 'tcp'"),
        (["run", "--dry-run", "--mode", "\x1b[31m\n"], 2, "--mode: "),
        (["run", "--dry-run", "--hops", "0"], 2, "--hops: '0' is not a hop count"),
        (["run", "--dry-run", "--seed", "-1"], 2, "Invalid value for '--seed'"),
        (["run", "--dry-run", "--offloads", "off"], 2, "--offloads: 'off' is none of equal, nat"),
        (["run", "--dry-run", "--requests", "0"], 2, "--requests: '0' is not a whole number"),
        (["run", "--dry-run", "--until-ci", "5"], 2, "--until-ci: '5' is not a share"),
        (["run", "--dry-run", "--time-limit", "9m"], 2, "--time-limit bounds --until-ci: give"),
        (
            ["run", "--dry-run", "--until-ci", "5%", "--time-limit", "9d"],
            *(2, "--time-limit: '9d' is not a time"),
        ),
        (["run", "--until-ci", "5%", "--time-limit", ""], 2, "--time-limit: '' is not a time"),
        (["run", "--resume", "none"], 1, "there is no run 'none'"),
        (["run", "--resume", "none", "--dry-run"], 2, "--dry-run is for a new run"),
        (["run", "--resume", "latest"], 1, "there is no run in "),
        (["run", "--resume", "none", "--mode", "nft"], 2, "--resume goes on with the run's own"),
        (["run", "--resume", "none", "--requests", "9"], 2, "--resume goes on with the run's own"),
        (["run", "--resume", "none", "--seed", "1"], 2, "--resume goes on with the run's own"),
        (["run", "--resume", "none", "--sweep", "x"], 2, "--resume goes on with the run's own"),
        (["run", "--dry-run", "--sweep", "none.toml"], 2, "none.toml: "),
        (["run", "-i", "none", "--mode", "nft"], 1, "no inventory 'none'"),
        (["deploy"], 1, "no inventory (give one with -i, or make a lab with bench lab up)"),
        (["deploy", "-i", "none"], 1, "no inventory 'none'"),
        (["undeploy", "-i", "."], 1, "inventory . is a folder"),
        (["doctor", "-i", "empty.ini"], 1, "empty.ini: has no group [client]"),
        (["doctor", "-i", "bad\n.ini"], 1, "no inventory 'bad\\n.ini'"),
        (["show", "latest"], 1, "there is no run in "),
        (["show", "none"], 1, "there is no run 'none'"),
        (["compare", "latest", "latest"], 1, "there is no run in "),
        (["list", "--results", "empty.ini"], 1, "cannot read empty.ini: Not a directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_one_line_for_a_mistake(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    handlers: None,
    words: list[str],
    status: int,
    line: str,
) -> None:
    Path("empty.ini").write_text("")
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out, err = capsys.readouterr()
    assert (caught.value.code, out) == (status, "")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert err.startswith(f"bench: {line}")
    assert err[:-1].isprintable()
    assert [path.name for path in Path.cwd().iterdir()] == ["empty.ini"]


@pytest.mark.parametrize("words", [("nope",), ("show", "none"), ("doctor", "-i", "none")])
def test_no_traceback_reaches_a_user(words: tuple[str, ...]) -> None:
    done = bench(*words)
    assert (done.returncode, done.stdout) == (2 if words == ("nope",) else 1, "")
    assert done.stderr.startswith("bench: ")
    assert done.stderr.count("\n") == 1


def test_a_list_of_no_runs() -> None:
    done = bench("list")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"There is no run in {Path.cwd()}/results.\n"
    done = bench("list", "--json")
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, [], "")
    assert list(Path.cwd().iterdir()) == []


def test_a_dry_run_measures_nothing() -> None:
    words = ("run", "--dry-run", "--mode", "xdp,nft", "--hops", "1-2", "--seed", "7")
    done = bench(*words, "--size", "624", "--blocks", "2", "--requests", "50")
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = done.stdout.splitlines()
    assert first.startswith("5 cells, 2 blocks, 10 samples, 500 requests, seed 7")
    assert sorted(rest) == [
        "  nft, 1 hops, 624 B, c=1, 50 requests",
        "  nft, 2 hops, 624 B, c=1, 50 requests",
        "  xdp (native), 1 hops, 624 B, c=1, 50 requests",
        "  xdp (native), 2 hops, 624 B, c=1, 50 requests",
        "  xdp (native, again), 2 hops, 624 B, c=1, 50 requests",
    ]
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "first", "said"),
    [
        (
            ["--size", "624"],
            "2 cells, 10 blocks, 20 samples, seed 7; order of block 1:",
            {
                "  direct, 0 hops, 624 B, c=1, as many requests as fit 0.4 s",
                "  direct (again), 0 hops, 624 B, c=1, as many requests as fit 0.4 s",
            },
        ),
        (
            ["--size", "624", "--no-aa", "--offloads", "equal,native", "--requests", "9"],
            "2 cells, 10 blocks, 20 samples, 180 requests, seed 7; order of block 1:",
            {
                "  direct, 0 hops, 624 B, c=1, 9 requests",
                "  direct, 0 hops, 624 B, c=1, native offloads, 9 requests",
            },
        ),
        (
            ["--size", "624", "--no-aa", "--concurrency", "25", "--requests", "30"],
            "1 cells, 10 blocks, 10 samples, 500 requests, seed 7; order of block 1:",
            {"  direct, 0 hops, 624 B, c=25, 50 requests"},
        ),
    ],
)
def test_what_a_dry_run_says(words: list[str], first: str, said: set[str]) -> None:
    fixed = ["run", "--dry-run", "--mode", "direct", "--seed", "7"]
    result = CliRunner().invoke(cli.cli, [*fixed, *words])
    assert (result.exit_code, result.stderr) == (0, "")
    line, *rest = result.output.splitlines()
    assert line == first
    assert set(rest) == said


def test_the_version() -> None:
    done = bench("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("hopbench, version ")


def test_a_reader_that_leaves() -> None:
    command = [sys.executable, "-m", "bench", "run", "--dry-run"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            command, env=environment, stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert b"Traceback" not in done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (BenchError("it broke", host="hop1", remedy="mend it"), 1, "hop1: it broke (mend it)"),
        (UsageError("not so"), 2, "not so"),
        (HostsError([("a", "x"), ("b", "y")]), 1, "a: x; b: y"),
        (Interrupted("SIGTERM"), 1, "interrupted (SIGTERM)"),
        (KeyboardInterrupt(), 1, "interrupted (by the terminal)"),
        (click.Abort(), 1, "interrupted (by the terminal)"),
        (click.FileError("x", "gone"), 1, "Could not open file 'x': gone"),
        (OSError(28, "No space left on device"), 1, "OSError: [Errno 28] No space left on device"),
        (RecursionError("too deep"), 1, "RecursionError: too deep"),
        (MemoryError(), 1, "MemoryError: "),
        (BrokenPipeError(), 1, None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_how_errors_end(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    handlers: None,
    raised: BaseException,
    status: int,
    line: str | None,
) -> None:
    def fail(**_: object) -> None:
        raise raised

    monkeypatch.setattr(cli.cli, "main", fail)
    monkeypatch.setattr(sys.stderr, "close", lambda: None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == status
    assert capsys.readouterr().err == ("" if line is None else f"bench: {line}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command(number: signal.Signals) -> None:
    code = (
        "import sys, time; from bench import cli\n"
        "def wait(**_):\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(30)\n"
        "cli.cli.main = wait\n"
        "cli.main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        begin = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (1, f"bench: interrupted ({number.name})\n")
    assert time.monotonic() - begin < 5
