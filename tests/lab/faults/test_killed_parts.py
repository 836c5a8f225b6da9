# SPDX-License-Identifier: Apache-2.0
"""What a sample needs is killed under it: the sample says so, and the run goes on or says why."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from bench.lab.model import Lab
from tests.lab.conftest import differences, kill, machine, processes
from tests.lab.faults.runs import agent_of, host_states, in_host, resumed, running, send, small_run


def _socat(lab: Lab) -> list[int]:
    # The first of its PID namespace, with which its children go.
    return in_host(lab, "hop1", "socat")[:1]


def _nginx(lab: Lab) -> list[int]:
    return in_host(lab, "server", "nginx")[:1]


def _siege(lab: Lab) -> list[int]:
    return in_host(lab, "client", "siege")


@pytest.mark.parametrize(
    ("find", "modes", "cause"),
    [
        (_socat, "socat,nft", "hop1: socat has ended"),
        (_nginx, "nft,xdp", "server: nginx has ended"),
        (_siege, "nft,xdp", "siege printed no report"),
    ],
    ids=["socat", "nginx", "siege"],
)
def test_a_program_is_killed_in_mid_sample(
    faulty: Lab, tmp_path: Path, find: object, modes: str, cause: str
) -> None:
    """The sample is invalid with the cause; the run goes on with the program started again."""
    before, hosts = machine(), host_states(faulty)
    with running(tmp_path, *small_run(faulty, modes=modes, requests=2000)) as made:
        made.until(lambda: made.measured >= 1 and _siege(faulty) and find(faulty))  # type: ignore[operator]
        send(signal.SIGKILL, *find(faulty)[:1])  # type: ignore[operator]
        done = made.end(120)
    assert done.status == 0, done.stderr
    run = made.read()
    assert run.meta["status"] == "complete"
    invalid = run.samples[~run.samples["valid"]]
    assert invalid["invalid_reason"].str.contains(cause).sum() >= 1, invalid["invalid_reason"]
    # Nothing else came to harm: the others of the eight samples are as good as ever.
    measured = run.samples[~run.samples["warmup"]]
    assert measured["valid"].sum() >= len(measured) - 2
    assert host_states(faulty) == hosts
    assert differences(before) == {}


@pytest.mark.parametrize("host", ["client", "hop2", "server"])
def test_an_agent_is_killed_in_mid_sample(faulty: Lab, tmp_path: Path, host: str) -> None:
    """What it had set up goes with it; the run says which, and can be resumed."""
    before, hosts = machine(), host_states(faulty)
    with running(tmp_path, *small_run(faulty, requests=3000)) as made:
        made.until(lambda: made.measured >= 2 and _siege(faulty))
        kill(agent_of(faulty, host))
        made.until_said(f"a sample is lost: {host}: ", 15)
        done = made.end()
    assert (done.status, f"bench: {host}: " in done.error) == (1, True), done.error
    run = made.read()
    assert run.meta["status"] == "failed"
    last = run.samples.iloc[-1]
    assert not last["valid"]
    assert last["invalid_reason"].startswith(f"{host}: ")
    assert differences(before) == {}
    assert host_states(faulty) == hosts
    if host == "hop2":
        resumed(faulty, made)


def test_siege_is_bounded_by_its_agent(faulty: Lab, tmp_path: Path) -> None:
    """A siege that hangs, as it can with stalled connections, is ended and its sample invalid."""
    before = machine()
    words = small_run(faulty, "--blocks", "1", modes="nft", requests=200)
    with running(tmp_path, *words) as made:
        made.until(lambda: made.samples and _siege(faulty))
        send(signal.SIGSTOP, *_siege(faulty))
        # 20 s and 0.05 s a request (bench/session.py).
        done = made.end(90)
    assert done.status == 0, done.stderr
    reasons = made.read().samples["invalid_reason"].dropna().tolist()
    assert [reason for reason in reasons if reason.startswith("siege was cut off after 3")], reasons
    assert not processes("siege")
    assert differences(before) == {}
