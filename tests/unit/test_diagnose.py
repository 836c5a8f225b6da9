# SPDX-License-Identifier: Apache-2.0
"""A run's diagnosis: order, evidence, offloads, numbers that make no sense, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from observing import BULK, CHAIN, NFT, ROLES, XDP, Counters, causes_of, found, sample
from synthetic import START, connections, read_run, write_run

from bench import cli
from bench.causes.model import joined, level
from bench.diagnose import diagnose
from bench.errors import BenchError
from bench.results import RunMeta
from bench.runwriter import RunWriter
from bench.sweep import Sweep


def nic(**values: Any) -> dict[str, Any]:
    """Return host facts of a NIC."""
    return {"nic": {"driver": "veth", "mtu": 1500, **values}}


def test_one_stray_retransmission_in_many_is_a_note() -> None:
    rows = [sample(number=number) for number in range(1, 101)]
    counters = {"alice": {"TcpExtTCPSynRetrans": 0.0}}
    assert found(counters, samples=rows, connect_us=[1.03e6]) == {}
    cause = found({"alice": {"TcpExtTCPSynRetrans": 1}}, samples=[sample()])["syn_retransmission"]
    assert cause.level == "note"
    assert [level(*each) for each in ((1, 100_000), (2, 100), (3, 3000), (3, 3001))] == [
        *("note", "note", "problem", "note")
    ]


def test_a_symptom_names_its_reason() -> None:
    counters = {"bob": {"TcpExtListenOverflows": 90}, "alice": {"TcpExtTCPSynRetrans": 90}}
    causes = found(counters)
    assert list(causes) == ["listen_overflow", "syn_retransmission"]
    assert causes["syn_retransmission"].level == "note"
    assert "Listen queue overflow" in causes["syn_retransmission"].text


def test_what_dropped_the_syns_stands_beside() -> None:
    dropped = {"forwarder_dropped_claim_lost": 4, "conntrack_insert_failed": 2}
    cause = found({"alice": {"TcpExtTCPSynRetrans": 6}, "hop2": dropped})["syn_retransmission"]
    assert "hop2: forwarder_dropped_claim_lost 4, conntrack_insert_failed 2" in cause.evidence


def test_order_and_where() -> None:
    """Problems before notes, most samples first; warm-ups and invalid samples are named."""
    samples = [sample(NFT, 1, block=0), sample(NFT, 1, failed=2), sample(XDP, 2)]
    counters = {"TcpExtListenOverflows": 9, "UdpRcvbufErrors": 1, "nic_rx_packets": 5000}
    causes = found({"bob": counters, "alice": {}}, samples=samples)
    assert [(each.name, each.level) for each in causes.values()] == [
        ("listen_overflow", "problem"),
        ("queue_drops", "note"),
    ]
    first = causes["listen_overflow"]
    assert first.samples == ("000-0001", "001-0001", "001-0002")
    assert first.evidence[-1] == (
        "3 of 3 samples (1 warm-up, 1 invalid): nft, 1 hop, 624 B, c=25 in 2; "
        "xdp, 1 hop, 624 B, c=25 in 1 (000-0001, 001-0001, 001-0002)"
    )


def test_hosts_of_one_machine() -> None:
    """What a kernel counts for all its namespaces is told once, and of all of them."""
    shared = {host: {"boot_id": "one"} for host in ROLES}
    busy = {"cpu_user_s": 1.0, "cpu_softirq_s": 1.0, "cpu_idle_s": 0.0, "softnet_dropped": 100.0}
    causes = found(dict.fromkeys(ROLES, busy), facts=shared)
    assert causes["cpu_saturated"].hosts == tuple(ROLES)
    assert len(causes["cpu_saturated"].evidence) == 2
    assert "user 50%, softirq 50%" in causes["cpu_saturated"].evidence[0]
    assert "100 at a CPU backlog" in causes["queue_drops"].text
    apart = found({"hop1": busy, "hop2": {**busy, "cpu_idle_s": 2.0}}, facts={})
    assert apart["cpu_saturated"].hosts == ("hop1",)


MISMATCH = "offload_mismatch"
# offloads, segments a packet of nft and of xdp at hop1; level, or None
MERGING = [
    ("equal", 1.0, 1.0, None),
    ("equal", 9.0, 1.0, "problem"),
    ("equal", 9.0, 9.0, "problem"),
    ("native", 9.0, 1.0, "note"),
    ("native", 9.0, 9.0, None),
    ("equal", 1.1, 1.0, None),
]


@pytest.mark.parametrize(("offloads", "nft", "xdp", "grave"), MERGING)
def test_offload_mismatch(offloads: str, nft: float, xdp: float, grave: str | None) -> None:
    cells = [replace(cell, offloads=offloads) for cell in BULK.values()]
    samples = [sample(cell, number) for number, cell in enumerate(cells, start=1)]
    rows = [
        {
            "sample": each.id,
            "host": "hop1",
            "role": "hop",
            "IpInReceives": 1000.0,
            "IpExtInNoECTPkts": 1000.0 * (nft if each.cell.mode == "nft" else xdp),
        }
        for each in samples
    ]
    causes_found = [
        each for each in causes_of(samples, rows, {"chain": CHAIN}) if each.name == MISMATCH
    ]
    assert [each.level for each in causes_found] == ([grave] if grave else [])
    if grave:
        assert causes_found[0].hosts == ("hop1",)
        assert "9.0 segments a packet" in causes_found[0].evidence[0]


def test_offloads_by_frames_and_by_facts() -> None:
    large = {"hop1": {"nic_rx_packets": 1000.0, "nic_rx_bytes": 3e6}}
    bulk = (sample(BULK["nft"]),)
    assert "hop1 2.0" in found(large, samples=bulk)[MISMATCH].evidence[0]
    assert MISMATCH not in found(large)  # small files cannot merge
    jumbo = found(large, samples=bulk, facts={"hop1": nic(mtu=9000)})
    assert MISMATCH not in jumbo
    facts = {host: nic(gro_max_size=65536) for host in ROLES}
    after = {**facts, "hop2": nic(gro_max_size=1)}
    cause = found(facts=facts, after=after)[MISMATCH]
    assert (cause.level, cause.hosts) == ("note", ("hop1", "hop2"))
    assert "gro_max_size 65536 and 1" in cause.evidence[0]
    # Equal offloads are the run's own doing, on all hops alike.
    assert found(facts=facts, after={host: nic(gro_max_size=1) for host in ROLES}) == {}


HOSTILE: list[Counters] = [
    {},
    {"alice": {}},
    {"stranger": {"TcpExtTCPSynRetrans": float("nan"), "TcpInCsumErrors": float("inf")}},
    {host: {"TcpExtListenOverflows": -5.0, "cpu_idle_s": float("nan")} for host in ROLES},
    {"alice": {"cpu_user_s": float("inf"), "cpu_idle_s": -1.0, "monotonic_s": 0.0}},
    {"hop1": {"monotonic_s": 1.0, "cpu0_busy_s": float("nan"), "cpu1_busy_s": -3.0}},
    {"hop1": {"conntrack_max": 0.0, "conntrack_count": 9.0, "TcpPassiveOpens": 9.0}},
]
FACTS: list[Any] = [None, {}, {"hop1": None}, {"hop1": {"nic": 7, "sysctls": [], "boot_id": 3}}]


@pytest.mark.parametrize("counters", HOSTILE)
@pytest.mark.parametrize("facts", FACTS)
def test_numbers_that_make_no_sense(counters: Counters, facts: Any) -> None:
    odd = {"failed_us": [None, float("nan"), None], "port": [None, None, None]}
    causes = found(counters, facts=facts, connect_us=[float("nan"), float("inf"), -1.0], **odd)
    assert set(causes) <= {"timer_losses"}


def test_hosts_and_samples_that_nobody_knows() -> None:
    causes = found({"mallory": {"TcpInCsumErrors": 9}})
    assert causes["checksum_corruption"].hosts == ("mallory",)
    rows = [{"sample": "999-0001", "host": "bob", "role": "server", "TcpInCsumErrors": 9.0}]
    assert not causes_of([sample()], rows, {"chain": "none"})
    assert not causes_of([], rows, {})


def test_many_words() -> None:
    assert joined(["a", "b", "c"]) == "a, b and c"
    assert joined([str(number) for number in range(20)]).endswith("7 and 12 others")


# --- from and to the disk ---------------------------------------------------------------------


def test_a_run_without_counters_or_connections(tmp_path: Path) -> None:
    path = write_run(tmp_path, (NFT, XDP), lambda *_: 1.0, blocks=2)
    assert diagnose(read_run(path)) == []
    done = CliRunner().invoke(cli.cli, ["diagnose", str(path)])
    assert done.exit_code == 0
    assert done.output == "No cause found: nothing odd in 4 samples.\n"


def test_the_command(tmp_path: Path) -> None:
    sweep = Sweep((NFT,), 1, seed=1)
    writer = RunWriter.create(tmp_path, RunMeta(sweep), now=START)
    counted = {"host": "server", "role": "server", "TcpExtListenOverflows": 70.0}
    times = connections(NFT.transactions, 900.0)
    times["connect_us"][:30] = 1.031e6
    writer.add_sample(sample(), "{}", times, [counted, {"host": "client", "role": "client"}])
    assert {each.name for each in diagnose(read_run(writer.path))} == {  # while it lasts
        *("listen_overflow", "syn_retransmission")
    }
    writer.finish("complete")
    done = CliRunner().invoke(cli.cli, ["diagnose", "latest", "--results", str(tmp_path), "--json"])
    document = json.loads(done.output)
    assert (document["run"], document["samples"]) == (writer.run_id, 1)
    assert [each["name"] for each in document["causes"]] == [
        *("listen_overflow", "syn_retransmission")
    ]
    assert document["causes"][0]["samples"] == {"count": 1, "ids": ["001-0001"]}
    text = CliRunner().invoke(cli.cli, ["diagnose", "latest", "--results", str(tmp_path)]).output
    assert "Problem: Listen queue overflow at server, in 1 of 1 sample: " in text
    assert "server: TcpExtListenOverflows 70" in text
    assert "client: connect times at 1 s (30)" in text
    assert "What helps: raise net.core.somaxconn" in text


def test_names_are_no_commands_to_a_terminal(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, RunMeta(Sweep((NFT,), 1, seed=1)), now=START)
    row = {"host": "bob\x1b[2J\nroot", "role": "server", "TcpExtListenOverflows": 70.0}
    writer.add_sample(sample(), "{}", None, [row])
    output = CliRunner().invoke(cli.cli, ["diagnose", str(writer.path)], color=True).output
    assert "at bob [2J root, in 1 of 1 sample" in output
    assert "\x1b" not in output


def test_a_damaged_file(tmp_path: Path) -> None:
    path = write_run(tmp_path, (NFT,), lambda *_: 1.0, blocks=1)
    (path / "counters.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(BenchError, match="damaged"):
        diagnose(read_run(path))
