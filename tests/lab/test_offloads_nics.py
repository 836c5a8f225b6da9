# SPDX-License-Identifier: Apache-2.0
"""Offloads of NICs other than a lab's: two of them, on top of each other, and gone meanwhile."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from bench.hop import offload_records as records
from tests.lab import links
from tests.lab.agents import CheckoutAgent
from tests.lab.offloads import Run, crash, record_in, state, use


@contextlib.contextmanager
def plain(*commands: str) -> Iterator[Run]:
    """A host with a veth pair as the kernel makes it: a0 has an address, b0 is its other end."""
    with links.hosts("plain"):
        links.ip(
            "plain",
            "link add a0 numrxqueues 2 numtxqueues 2 type veth peer name b0",
            "address add 198.19.9.1/30 dev a0",
            "link set a0 up",
            "link set b0 up",
            *commands,
        )
        yield lambda *argv: links.run("plain", *argv)


def plain_record() -> Path:
    """Return where the record of a0 belongs."""
    return record_in(links.namespace("plain"), "a0")


@contextlib.contextmanager
def plain_agent(**place: str) -> Iterator[CheckoutAgent]:
    """An agent on that host."""
    with CheckoutAgent(links.namespace("plain"), "198.19.9.1") as agent:
        assert agent.place(**{"data_nic": "a0", **place})["event"] == "ready"
        yield agent


def test_two_nics_that_segment_themselves() -> None:
    with plain("link set a0 gro_max_size 180000") as run:
        # What is asked for and cannot be, for want of checksums, is to be asked for again.
        run("ethtool", "-K", "b0", "tx", "off", "tx-tcp-ecn-segmentation", "off")
        before = state(run, "a0"), state(run, "b0")
        assert "tx-tcp-segmentation: on" in before[0][0]
        assert before[0][1:] == (180000, 65536)
        assert "tx-tcp-segmentation: off [requested on]" in before[1][0]
        with plain_agent(egress_nic="b0") as agent:
            for nic in ("a0", "b0"):
                found = use(agent, "equal", nic)
                assert {value for value in found.values() if isinstance(value, str)} == {"off"}
                assert "tx-tcp-segmentation: off\n" in run("ethtool", "-k", nic)
            assert state(run, "a0")[1:] == (1, 1)
            use(agent, "native", "a0")
            assert (state(run, "a0"), state(run, "b0")) == before
            use(agent, "equal", "a0")
        assert (state(run, "a0"), state(run, "b0")) == before


def test_a_nic_below_another() -> None:
    """It is there that what arrives is merged."""
    with plain("link add c0 type bridge", "link set a0 master c0", "link set c0 up") as run:
        before = state(run, "a0"), state(run, "c0")
        with plain_agent(data_nic="c0") as agent:
            answer = agent.ask(op="offloads", use="equal")
            assert list(answer["offloads"]) == ["c0", "a0"]
            for nic in ("c0", "a0"):
                assert "tx-tcp-segmentation: off" in run("ethtool", "-k", nic)
            assert answer["offloads"]["c0"]["generic-receive-offload"] == "off"
            assert answer["offloads"]["a0"]["gro_max_size"] == 1
        assert (state(run, "a0"), state(run, "c0")) == before


def test_what_cannot_be_put_back_yet_stays_recorded() -> None:
    """A veth whose peer runs XDP cannot have segmentation offload, as long as it does."""
    with plain() as run:
        before = state(run, "a0")
        with plain_agent() as agent:
            use(agent, "equal", "a0")
            links.attach_pass("plain", "b0")
        after = run("ethtool", "-k", "a0")
        assert re.search(r"tx-tcp-segmentation: off \[fixed\]", after)
        assert plain_record().exists()
        run("ip", "link", "set", "b0", "xdp", "off")
        said = json.loads(run("/usr/bin/python3", "-B", records.__file__))
        assert said == ["offload settings of a0"]
        assert state(run, "a0") == before
        assert not plain_record().exists()


def test_a_nic_that_goes_away_meanwhile() -> None:
    with plain() as run:
        record = plain_record()
        with plain_agent() as agent:
            use(agent, "equal", "a0")
            assert record.exists()
            run("ip", "link", "delete", "a0")
            assert agent.ask(op="offloads", use="native")["event"] == "error"
            assert agent.ask(op="renew")["event"] == "ready"
        assert not record.exists()


def test_a_namespace_that_goes_away_leaves_a_record_to_any_host() -> None:
    with plain(), plain_agent() as agent:
        record = plain_record()
        use(agent, "equal", "a0")
        crash(links.namespace("plain"), agent)
    assert record.exists()
    with plain() as run:
        said = json.loads(run("/usr/bin/python3", "-B", records.__file__))
    assert any(each.startswith(f"record of offloads {record.name}") for each in said)
    assert not record.exists()
