# SPDX-License-Identifier: Apache-2.0
"""A host's link, namespace or SSH goes away in mid-run: noticed within 15 s, named, cleaned up."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.lab import network
from bench.lab.lifecycle import EphemeralLab
from bench.lab.model import NIC, Lab
from tests.lab.conftest import bench, differences, inside, machine, wait_until
from tests.lab.faults.runs import (
    Running,
    host_states,
    in_host,
    resumed,
    running,
    send,
    small_run,
)

NOTICED_S = 15.0
LOST = "a sample is lost: "


def _link(lab: Lab, host: str, how: str) -> None:
    inside(lab, host, "ip", "link", "set", NIC, how)


def _sshd(lab: Lab, host: str) -> list[int]:
    return in_host(lab, host, "sshd")


@pytest.fixture
def at_work(faulty: Lab, tmp_path: Path) -> Iterator[Running]:
    """A run in the middle of a sample, through both hops."""
    words = small_run(faulty, "--hops", "2", "--blocks", "20", requests=1500)
    with running(tmp_path, *words) as made:
        made.until(lambda: made.measured >= 2 and in_host(faulty, "client", "siege"))
        yield made


@pytest.mark.parametrize("host", ["client", "hop2"])
def test_a_link_that_comes_back(faulty: Lab, tmp_path: Path, host: str) -> None:
    """Samples without it are invalid for that reason, and the run goes on."""
    before = machine()
    with running(tmp_path, *small_run(faulty, "--hops", "2", requests=1500)) as made:
        made.until(lambda: made.measured >= 1 and in_host(faulty, "client", "siege"))
        _link(faulty, host, "down")
        time.sleep(2.0)
        _link(faulty, host, "up")
        done = made.end(120)
    assert done.status == 0, done.stderr
    run = made.read()
    assert run.meta["status"] == "complete"
    invalid = run.samples[~run.samples["valid"]]["invalid_reason"].tolist()
    assert any(reason.startswith(f"{host}: ") for reason in invalid), invalid
    assert run.samples.iloc[-1]["valid"]
    assert differences(before) == {}


@pytest.mark.parametrize("host", ["hop2", "server"])
def test_a_link_that_stays_away(faulty: Lab, at_work: Running, host: str) -> None:
    before_fault = time.monotonic()
    _link(faulty, host, "down")
    try:
        at_work.until_said(f"{LOST}{host}: {NIC} is set down", NOTICED_S)
        noticed_s = time.monotonic() - before_fault
        done = at_work.end()
    finally:
        _link(faulty, host, "up")
    assert done.status == 1
    assert f"{host}: {NIC} is set down (ip link set {NIC} up)" in done.error
    assert noticed_s < NOTICED_S
    assert wait_until(lambda: not in_host(faulty, host))
    resumed_run = at_work.read()
    assert resumed_run.meta["status"] == "failed"


@pytest.mark.parametrize("host", ["client", "hop1", "server"])
def test_ssh_is_cut(faulty: Lab, at_work: Running, host: str) -> None:
    """The ProxyCommand is killed, which is all of the way to a lab's host."""
    before_fault = time.monotonic()
    send(signal.SIGKILL, *_sshd(faulty, host))
    at_work.until_said(f"{LOST}{host}: SSH: connection lost", NOTICED_S)
    assert time.monotonic() - before_fault < NOTICED_S
    done = at_work.end()
    assert (done.status, f"{host}: SSH: connection lost" in done.error) == (1, True), done.error
    for each in faulty.hosts:
        assert wait_until(lambda name=each.name: not in_host(faulty, name)), each.name


@pytest.mark.parametrize("host", ["client", "hop1"])
def test_ssh_is_stalled(faulty: Lab, at_work: Running, host: str) -> None:
    """sshd is stopped: nothing says that it is gone, and no agent learns that the run has ended."""
    stopped = _sshd(faulty, host)
    before_fault = time.monotonic()
    send(signal.SIGSTOP, *stopped)
    try:
        at_work.until_said(f"{LOST}{host}: ", NOTICED_S)
        noticed_s = time.monotonic() - before_fault
        done = at_work.end()
        assert (done.status, f"{host}: " in done.error) == (1, True), done.error
        assert noticed_s < NOTICED_S
        # The agent's lease runs out.
        assert wait_until(lambda: not in_host(faulty, host), 45.0)
        assert "xdp" not in inside(faulty, host, "ip", "link", "show", NIC)
    finally:
        send(signal.SIGCONT, *stopped)
        send(signal.SIGKILL, *stopped)


def test_ssh_is_stalled_while_others_prepare(faulty: Lab, tmp_path: Path) -> None:
    """An agent that is ready, and hears no more, does not wait for as long as others may take."""
    shutil.rmtree("/opt/hopbench/built", ignore_errors=True)
    # A hop compiles; the server is ready sooner.
    with running(tmp_path, *small_run(faulty, "--hops", "2")) as made:
        made.until(lambda: in_host(faulty, "server", "nginx"))
        stopped = _sshd(faulty, "server")
        before_fault = time.monotonic()
        send(signal.SIGSTOP, *stopped)
        try:
            done = made.end()
            assert (done.status, "server: " in done.error) == (1, True), done.error
            assert wait_until(lambda: not in_host(faulty, "server"), 45.0)
            assert time.monotonic() - before_fault < 45.0
            assert not in_host(faulty, "server", "nginx")
        finally:
            send(signal.SIGCONT, *stopped)
            send(signal.SIGKILL, *stopped)


def test_a_host_is_deleted(tmp_path: Path) -> None:
    """All of a hop goes at once, as when power fails; clean names what is not there."""
    before = machine()
    with EphemeralLab(2, name="doomed") as lab:
        assert bench("deploy", "-i", lab.name).status == 0
        with running(tmp_path, *small_run(lab, "--hops", "2", requests=1500)) as made:
            made.until(lambda: made.measured >= 2 and in_host(lab, "client", "siege"))
            before_fault = time.monotonic()
            network._end_processes([lab.namespace("hop2")])
            subprocess.run(["ip", "netns", "delete", lab.namespace("hop2")], check=True, timeout=10)
            made.until_said(f"{LOST}hop2: ", NOTICED_S)
            assert time.monotonic() - before_fault < NOTICED_S
            done = made.end()
        assert (done.status, "hop2: " in done.error) == (1, True), done.error
        cleaned = bench("clean", "-i", lab.name)
        assert (cleaned.status, "hop2: " in cleaned.error) == (1, True), cleaned.stderr
        for host in ("client", "hop1", "server"):
            assert wait_until(lambda name=host: not in_host(lab, name)), host
    assert differences(before, 60) == {"folders": {"/opt/hopbench"}} or differences(before) == {}


def test_after_all_that_the_run_is_finished(faulty: Lab, tmp_path: Path) -> None:
    before, hosts = machine(), host_states(faulty)
    with running(tmp_path, *small_run(faulty, "--hops", "2", requests=1500)) as made:
        made.until(lambda: made.measured >= 1 and in_host(faulty, "client", "siege"))
        send(signal.SIGKILL, *_sshd(faulty, "hop2"))
        assert made.end().status == 1
    resumed(faulty, made)
    assert bench("clean", "-i", faulty.name).status == 0
    assert host_states(faulty) == hosts
    assert differences(before) == {}
