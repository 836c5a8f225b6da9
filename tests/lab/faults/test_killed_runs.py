# SPDX-License-Identifier: Apache-2.0
"""`bench run` is ended by a signal in each of its phases: hosts are as before, and it resumes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.lab.model import Lab
from tests.lab.conftest import bench, differences, machine, processes
from tests.lab.faults.runs import Running, host_states, in_host, resumed, running, small_run

KILL, TERM, INT, HUP = signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP
# Docs promise 30 s, which is a lease; where SSH notices that its other end has gone, it is at once.
LEASE_S = 30.0


def _agents_start(lab: Lab, _: Running) -> bool:
    return bool(in_host(lab, "hop2"))


def _warming_up(_: Lab, made: Running) -> bool:
    return len(made.samples) >= 1


def _siege_runs(_: Lab, made: Running) -> bool:
    return made.measured >= 2 and bool(processes("siege"))


def _between_samples(_: Lab, made: Running) -> bool:
    return made.measured >= 3 and not processes("siege")


def _file_half_written(_: Lab, made: Running) -> bool:
    return made.measured >= 1 and bool(list(made.output.glob("*/.*.tmp")))


PHASES: dict[str, tuple[Callable[[Lab, Running], bool], int]] = {
    "agents starting": (_agents_start, 300),
    "warm-up": (_warming_up, 300),
    "sample running": (_siege_runs, 3000),
    # Of samples so short, nearly all the time lies between them: switching, counters, files.
    "switching mode": (_between_samples, 10),
    # A file is half there for a millisecond or two; now and then it is caught.
    "writing results": (_file_half_written, 10),
}
# What a signal does beyond ending the process is the same code for all but SIGKILL.
CASES = [
    *((phase, KILL) for phase in PHASES),
    *((phase, TERM) for phase in PHASES if phase != "switching mode"),
    ("sample running", INT),
    ("switching mode", HUP),
]


@pytest.mark.parametrize(
    ("phase", "number"), CASES, ids=[f"{phase} {number.name}" for phase, number in CASES]
)
def test_a_run_that_is_ended(
    faulty: Lab, tmp_path: Path, phase: str, number: signal.Signals
) -> None:
    condition, requests = PHASES[phase]
    before, hosts = machine(), host_states(faulty)
    with running(tmp_path, *small_run(faulty, "--blocks", "3", requests=requests)) as made:
        made.until(lambda: condition(faulty, made), pause_s=0.0)
        begin = time.monotonic()
        made.process.send_signal(number)
        done = made.end()
    assert differences(before, LEASE_S) == {}
    took_s = time.monotonic() - begin
    assert host_states(faulty) == hosts
    assert took_s < LEASE_S
    # docs/reliability.md quotes it; pytest -rP shows it.
    print(f"nothing left {took_s:.2f} s after {number.name}, {phase}")
    if number == KILL:
        assert (done.status, made.read().meta["status"]) == (-KILL, "running")
    else:
        assert (done.status, made.read().meta["status"]) == (1, "interrupted")
        assert f"interrupted ({number.name})" in done.error
    shown = bench("show", made.read().path)
    assert shown.status == 0 or shown.error.startswith("bench: "), shown.stderr
    resumed(faulty, made)
    assert differences(before) == {}


def _lab_is_made(_: Running) -> bool:
    return any(Path("/run/hopbench").glob("run-*"))


def _deploying(made: Running) -> bool:
    return "deploying" in made.said and bool(processes("ansible-playbook"))


@pytest.mark.parametrize("number", [KILL, TERM], ids=lambda number: number.name)
@pytest.mark.parametrize(
    "condition", [_lab_is_made, _deploying], ids=["before deploy", "deploying"]
)
def test_a_run_with_a_lab_of_its_own_is_ended(
    faulty: Lab, tmp_path: Path, condition: Callable[[Running], bool], number: signal.Signals
) -> None:
    before = machine()
    words = ("run", "--mode", "nft", "--hops", "1", "--size", "624", "--blocks", "1")
    # Nothing is deployed as far as it knows.
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    with running(tmp_path, *words, env=state) as made:
        made.until(lambda: condition(made))
        begin = time.monotonic()
        made.process.send_signal(number)
        made.end()
        assert differences(before, LEASE_S) == {}
        print(f"nothing left {time.monotonic() - begin:.2f} s after {number.name}, own lab")


@pytest.fixture(scope="module")
def measured(faulty: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run to report on."""
    output = tmp_path_factory.mktemp("measured")
    assert bench(*small_run(faulty), "--output", output).status == 0
    (path,) = output.iterdir()
    yield path


@pytest.mark.parametrize("number", [KILL, TERM], ids=lambda number: number.name)
def test_a_report_that_is_ended(measured: Path, tmp_path: Path, number: signal.Signals) -> None:
    """What there is of it is whole, and it is made anew."""
    before = machine()
    with running(tmp_path, "report", measured) as made:
        made.until(lambda: any((made.output / "plots").glob("*")))
        made.process.send_signal(number)
        made.end()
    page = made.output / "report.html"
    assert not page.exists() or page.read_text().rstrip().endswith("</html>")
    assert bench("report", measured, "--output", made.output).status == 0
    assert page.read_text().rstrip().endswith("</html>")
    assert not list(made.output.rglob("*.tmp"))
    assert differences(before) == {}
