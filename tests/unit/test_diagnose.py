# SPDX-License-Identifier: Apache-2.0
"""Causes of odd numbers: what makes each of them speak, and what must not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from synthetic import START, connections, read_run, report, write_run

from bench.causes.connecting import STEPS_S, steps
from bench.causes.model import Cause, joined, level
from bench.causes.observed import CONNECTION_COLUMNS, observe
from bench.cells import Cell
from bench.commands.diagnose import diagnose_command
from bench.diagnose import causes, diagnose
from bench.errors import BenchError
from bench.results import COLUMNS, RunMeta, Sample
from bench.runwriter import RunWriter
from bench.sweep import Sweep
from bench.tables import CONNECTIONS

NFT = Cell("nft", "", 1, 624, 25, 1000)
XDP = Cell("xdp", "native", 1, 624, 25, 1000)
BULK = {mode: Cell(mode, attach, 1, 159744, 5, 100) for mode, attach in (("nft", ""), ("xdp", ""))}
CHAIN = {
    "client": {"name": "alice"},
    "hops": [{"name": "hop1"}, {"name": "hop2"}],
    "server": {"name": "bob"},
}
ROLES = {"alice": "client", "hop1": "hop", "hop2": "hop", "bob": "server"}
# One sample's worth of a machine that had time to spare.
IDLE = {"cpu_user_s": 0.1, "cpu_idle_s": 1.9, "monotonic_s": 1.0, "cpu0_busy_s": 0.1}

Counters = Mapping[str, Mapping[str, float]]
"""By host, by name."""


def sample(
    cell: Cell = NFT, number: int = 1, *, block: int = 1, failed: int = 0, lost: int = 0
) -> Sample:
    """Return a sample; one with failures is invalid."""
    reason = f"{failed} failed transactions" if failed else ""
    said = report(cell, 1.0, failed)
    return Sample(cell, block, number, START, said, reason, 1.0, cell.transactions, lost)


def found(
    counters: Counters | None = None,
    *,
    samples: Sequence[Sample] = (sample(),),
    connect_us: Sequence[float] = (),
    facts: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    **odd: Any,
) -> dict[str, Cause]:
    """Return the causes by name that a run shows, all of whose samples counted the same.

    connect_us: of the first sample's connections. odd: more columns of connections.
    """
    rows = [
        {"sample": each.id, "host": host, "role": ROLES.get(host, "hop"), **values}
        for each in samples
        for host, values in (counters or {}).items()
    ]
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["sample", "host", "role"])
    number = len(odd.get("failed_us", connect_us))
    columns: dict[str, Any] = {
        "sample": [samples[0].id] * number,
        "connect_us": list(connect_us) or [None] * number,
        "failed_us": [None] * number,
        "port": [40000] * number,
        **odd,
    }
    schema = pa.schema([CONNECTIONS.field(name) for name in CONNECTION_COLUMNS])
    meta = {"chain": CHAIN, "host_facts": facts or {}, "host_facts_after": after or {}}
    lines = pd.DataFrame([_typed(each) for each in samples])
    observed = observe(lines, table, pa.table(columns, schema=schema), meta)
    return {each.name: each for each in causes(observed)}


def _typed(each: Sample) -> dict[str, Any]:
    row = dict(zip(COLUMNS, each.row(), strict=True))
    for name, kind in COLUMNS.items():
        if kind == "flag":
            row[name] = row[name] == "true"
        elif kind in ("whole", "count"):
            row[name] = int(row[name]) if row[name] else pd.NA
    return row


def nic(**values: Any) -> dict[str, Any]:
    """Return host facts of a NIC."""
    return {"nic": {"driver": "veth", "mtu": 1500, **values}}


HEALTHY: Counters = {
    "alice": {**IDLE, "TcpOutSegs": 5000.0, "TcpExtTCPSynRetrans": 0.0, "TcpOutRsts": 3.0},
    "hop1": {**IDLE, "nic_rx_packets": 9000.0, "nic_rx_dropped": 0.0, "conntrack_drop": 0.0},
    "bob": {**IDLE, "TcpExtPAWSEstab": 0.0, "TcpExtListenDrops": 0.0, "tcp_time_wait": 1000.0},
}

# name, counters, what else the run has; the level, and the hosts it is seen at
SEEN: list[tuple[str, Counters, dict[str, Any], str, tuple[str, ...]]] = [
    ("syn_retransmission", {"alice": {"TcpExtTCPSynRetrans": 1}}, {}, "note", ("alice",)),
    ("syn_retransmission", {"alice": {"TcpExtTCPSynRetrans": 50}}, {}, "problem", ("alice",)),
    ("syn_retransmission", {"hop1": {"TcpExtTCPSynRetrans": 50}}, {}, "problem", ("hop1",)),
    (
        "syn_retransmission",
        {"alice": {"TcpExtTCPSynRetrans": 3}},
        {"connect_us": [500.0] * 997 + [1.03e6, 1.031e6, 3.07e6]},
        "problem",
        ("alice",),
    ),
    # Without counters the steps have to speak for themselves.
    ("syn_retransmission", {}, {"connect_us": [1.02e6, 2.05e6, 3.08e6]}, "problem", ("alice",)),
    (
        "time_wait_collision",
        {"bob": {"TcpExtPAWSTimewait": 40}, "alice": {"TcpExtTCPSynRetrans": 40}},
        {},
        "problem",
        ("bob",),
    ),
    # Kernels before PAWSTimewait have one counter for both; here behind a proxy.
    (
        "time_wait_collision",
        {"bob": {"TcpExtPAWSEstab": 40}, "hop1": {"TcpExtTCPSynRetrans": 40}},
        {},
        "problem",
        ("bob",),
    ),
    ("checksum_corruption", {"bob": {"TcpInCsumErrors": 2}}, {}, "note", ("bob",)),
    ("checksum_corruption", {"bob": {"TcpInCsumErrors": 20}}, {}, "problem", ("bob",)),
    ("checksum_corruption", {"hop2": {"Udp6InCsumErrors": 20}}, {}, "problem", ("hop2",)),
    ("listen_overflow", {"bob": {"TcpExtListenOverflows": 9}}, {}, "problem", ("bob",)),
    ("listen_overflow", {"hop1": {"TcpExtTCPReqQFullDrop": 9}}, {}, "problem", ("hop1",)),
    ("listen_overflow", {"bob": {"TcpExtListenDrops": 1}}, {}, "note", ("bob",)),
    ("queue_drops", {"bob": {"nic_tx_dropped": 900}}, {}, "problem", ("bob",)),
    ("queue_drops", {"hop1": {"egress_rx_missed_errors": 900}}, {}, "problem", ("hop1",)),
    ("queue_drops", {"hop1": {"ethtool_rx_queue_0_drops": 900}}, {}, "problem", ("hop1",)),
    ("queue_drops", {"hop1": {"ethtool_rx_out_of_buffer": 9}}, {}, "problem", ("hop1",)),
    ("queue_drops", {"hop1": {"softnet_dropped": 9}}, {}, "problem", ("hop1",)),
    ("queue_drops", {"bob": {"TcpExtTCPBacklogDrop": 9}}, {}, "problem", ("bob",)),
    ("queue_drops", {"bob": {"nic_tx_dropped": 9, "nic_rx_packets": 1e6}}, {}, "note", ("bob",)),
    (
        "queue_drops",
        {"hop1": {"nic_rx_dropped": 30}, "bob": {"TcpRetransSegs": 30}},
        {},
        "problem",
        ("hop1",),
    ),
    (
        "conntrack_full",
        {"hop1": {"conntrack_drop": 30, "conntrack_count": 500, "conntrack_max": 500}},
        {},
        "problem",
        ("hop1",),
    ),
    ("conntrack_full", {"hop2": {"conntrack_early_drop": 30}}, {}, "problem", ("hop2",)),
    (
        "port_exhaustion",
        {},
        {"failed_us": [20.0] * 9, "port": [0] * 9},
        "problem",
        ("alice",),
    ),
    ("port_exhaustion", {"hop1": {"forwarder_dropped_no_port": 7}}, {}, "problem", ("hop1",)),
    ("port_exhaustion", {"hop1": {"forwarder_dropped_table_full": 1}}, {}, "note", ("hop1",)),
    (
        "port_exhaustion",
        {"hop1": {"conntrack_insert_failed": 9, "conntrack_drop": 9}},
        {},
        "problem",
        ("hop1",),
    ),
    (
        "port_exhaustion",
        {"hop1": {"TcpPassiveOpens": 100, "TcpActiveOpens": 60, "tcp_time_wait": 16}},
        {
            "samples": (sample(Cell("socat", "", 1, 624, 25, 100)),),
            "facts": {"hop1": {"sysctls": {"net.ipv4.ip_local_port_range": "20000 20015"}}},
        },
        "problem",
        ("hop1",),
    ),
    (
        "cpu_saturated",
        {"hop1": {"cpu_softirq_s": 1.5, "cpu_system_s": 0.5, "cpu_idle_s": 0.01}},
        {},
        "note",
        ("hop1",),
    ),
    (
        "cpu_saturated",
        {
            "hop1": {
                "cpu_softirq_s": 0.99,
                "cpu_idle_s": 3.0,
                "monotonic_s": 1.0,
                **{f"cpu{cpu}_busy_s": 0.99 if cpu == 2 else 0.01 for cpu in range(4)},
            }
        },
        {},
        "note",
        ("hop1",),
    ),
    (
        "cpu_steal",
        {"alice": {"cpu_steal_s": 0.2, "cpu_user_s": 0.8, "cpu_idle_s": 1.0}},
        {},
        "problem",
        ("alice",),
    ),
    ("timer_losses", {}, {"samples": (sample(lost=3),)}, "problem", ("alice",)),
    ("failed_requests", {}, {"samples": (sample(failed=4),)}, "problem", ()),
    ("failed_requests", {}, {"failed_us": [1e7], "port": [40000]}, "problem", ()),
]

NOT_SEEN: list[tuple[str, Counters, dict[str, Any]]] = [
    # The server's counter is of SYN-ACKs; slow without a repeated SYN is another matter.
    ("syn_retransmission", {"bob": {"TcpExtTCPSynRetrans": 9}}, {}),
    ("syn_retransmission", {"alice": {"TcpExtTCPSynRetrans": 0}}, {"connect_us": [1.03e6] * 9}),
    ("syn_retransmission", {}, {"connect_us": [1.03e6, 1.5e6, 1.6e6, 2.5e6, 2.6e6]}),
    ("syn_retransmission", {}, {"connect_us": [0.8e6] * 99}),
    # An old segment of an established connection; a few among many repeated SYNs.
    ("time_wait_collision", {"bob": {"TcpExtPAWSEstab": 40}}, {}),
    (
        "time_wait_collision",
        {"bob": {"TcpExtPAWSEstab": 1}, "alice": {"TcpExtTCPSynRetrans": 99}},
        {},
    ),
    ("checksum_corruption", {"bob": {"IpInHdrErrors": 9, "TcpInErrs": 9}}, {}),
    ("listen_overflow", {"bob": {"TcpExtSyncookiesRecv": 9}}, {}),
    # Verdicts of XDP programs, and frames of protocols that nobody takes.
    ("queue_drops", {"hop1": {"ethtool_rx_queue_0_xdp_drops": 9, "ethtool_rx_xdp_drop": 9}}, {}),
    ("queue_drops", {"hop1": {"nic_rx_dropped": 3}}, {}),
    ("conntrack_full", {"hop1": {"conntrack_drop": 9, "conntrack_insert_failed": 9}}, {}),
    ("conntrack_full", {"hop1": {"conntrack_count": 500, "conntrack_max": 500}}, {}),
    # A refused connection had a port; insertions fail when the table is full, too.
    ("port_exhaustion", {}, {"failed_us": [90.0] * 9}),
    (
        "port_exhaustion",
        {"hop1": {"conntrack_insert_failed": 9, "conntrack_count": 99, "conntrack_max": 100}},
        {},
    ),
    (
        "port_exhaustion",
        {"hop1": {"TcpPassiveOpens": 100, "TcpActiveOpens": 60, "tcp_time_wait": 16}},
        {"samples": (sample(Cell("socat", "", 1, 624, 25, 100)),)},
    ),
    ("cpu_saturated", {"hop1": {"cpu_user_s": 0.01, "cpu_idle_s": 0.0, "monotonic_s": 0.01}}, {}),
    ("cpu_saturated", {"hop1": {"cpu_user_s": 2.0, "monotonic_s": 1.0}}, {}),
    ("cpu_saturated", {"hop1": {"cpu0_busy_s": 1.0, "monotonic_s": 1.0, "cpu_idle_s": 1.0}}, {}),
    ("cpu_steal", {"hop1": {"cpu_steal_s": 0.01, "cpu_idle_s": 2.0}}, {}),
    # A problem found in the same samples explains failures.
    (
        "failed_requests",
        {"bob": {"TcpExtListenOverflows": 9}},
        {"samples": (sample(failed=4),)},
    ),
]


@pytest.mark.parametrize(("name", "counters", "more", "grave", "hosts"), SEEN)
def test_a_cause_is_seen(
    name: str, counters: Counters, more: dict[str, Any], grave: str, hosts: tuple[str, ...]
) -> None:
    cause = found(counters, **more)[name]
    assert (cause.level, cause.hosts) == (grave, hosts)
    assert cause.samples == ("001-0001",)
    assert all(cause.evidence)
    line = cause.line()
    assert line.startswith(cause.title)
    assert line.endswith(".")
    assert "\n" not in line
    assert json.loads(json.dumps(cause.record(), allow_nan=False))["name"] == name


@pytest.mark.parametrize(("name", "counters", "more"), NOT_SEEN)
def test_what_is_no_such_cause(name: str, counters: Counters, more: dict[str, Any]) -> None:
    assert name not in found(counters, **more)


def test_a_healthy_run_gives_nothing() -> None:
    samples = [sample(cell, number) for number, cell in enumerate((NFT, XDP), start=1)]
    assert found(HEALTHY, samples=samples, connect_us=[500.0] * 100) == {}


def test_one_stray_retransmission_in_many_is_a_note() -> None:
    rows = [sample(number=number) for number in range(1, 101)]
    counters = {"alice": {"TcpExtTCPSynRetrans": 0.0}}
    assert found(counters, samples=rows, connect_us=[1.03e6]) == {}
    cause = found({"alice": {"TcpExtTCPSynRetrans": 1}}, samples=[sample()])["syn_retransmission"]
    assert cause.level == "note"
    assert [level(*each) for each in ((1, 100_000), (2, 100), (3, 3000), (3, 3001))] == [
        *("note", "note", "problem", "note")
    ]


@pytest.mark.parametrize("step", STEPS_S)
def test_steps_of_the_syn_timer(step: int) -> None:
    late = np.array([step * 1e6 * factor + 300 for factor in (1.0, 1.02, 1.035)])
    assert steps(late) == {step: 3}
    # As a kernel of 6.18 had them.
    measured = np.array([1.035e6, 2.05e6, 3.08e6, 4.10e6, 5.12e6, 7.133e6, 19.482e6])
    assert set(steps(measured)) == {1, 2, 3, 4, 5, 7, 19}


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
    cells = {mode: Cell(*_fields(cell), offloads) for mode, cell in BULK.items()}
    samples = [sample(cell, number) for number, cell in enumerate(cells.values(), start=1)]
    rows = pd.DataFrame(
        [
            {
                "sample": each.id,
                "host": "hop1",
                "role": "hop",
                "IpInReceives": 1000.0,
                "IpExtInNoECTPkts": 1000.0 * (nft if each.cell.mode == "nft" else xdp),
            }
            for each in samples
        ]
    )
    lines = pd.DataFrame([_typed(each) for each in samples])
    schema = pa.schema([CONNECTIONS.field(name) for name in CONNECTION_COLUMNS])
    observed = observe(lines, rows, schema.empty_table(), {"chain": CHAIN})
    causes_found = [each for each in causes(observed) if each.name == "offload_mismatch"]
    assert [each.level for each in causes_found] == ([grave] if grave else [])
    if grave:
        assert causes_found[0].hosts == ("hop1",)
        assert "9.0 segments a packet" in causes_found[0].evidence[0]


def _fields(cell: Cell) -> tuple[Any, ...]:
    return (
        cell.mode,
        cell.attach,
        cell.hops,
        cell.size_bytes,
        cell.concurrency,
        cell.requests,
    )


def test_offloads_by_frames_and_by_facts() -> None:
    large = {"hop1": {"nic_rx_packets": 1000.0, "nic_rx_bytes": 3e6}}
    bulk = (sample(BULK["nft"]),)
    assert "hop1 2.0" in found(large, samples=bulk)["offload_mismatch"].evidence[0]
    assert "offload_mismatch" not in found(large)  # small files cannot merge
    jumbo = found(large, samples=bulk, facts={"hop1": nic(mtu=9000)})
    assert "offload_mismatch" not in jumbo
    facts = {host: nic(gro_max_size=65536) for host in ROLES}
    after = {**facts, "hop2": nic(gro_max_size=1)}
    cause = found(facts=facts, after=after)["offload_mismatch"]
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
    assert set(causes) <= {"failed_requests"}


def test_hosts_and_samples_that_nobody_knows() -> None:
    causes = found({"mallory": {"TcpInCsumErrors": 9}})
    assert causes["checksum_corruption"].hosts == ("mallory",)
    table = pd.DataFrame(
        [{"sample": "999-0001", "host": "bob", "role": "server", "TcpInCsumErrors": 9.0}]
    )
    schema = pa.schema([CONNECTIONS.field(name) for name in CONNECTION_COLUMNS])
    lines = pd.DataFrame([_typed(sample())])
    assert not causes_of(lines, table, schema.empty_table(), {"chain": "none"})
    assert not causes_of(lines.iloc[:0], table, schema.empty_table(), {})


def causes_of(*tables: Any) -> list[Cause]:
    """Return the causes of what `observe` takes."""
    return causes(observe(*tables))


def test_many_words() -> None:
    assert joined(["a", "b", "c"]) == "a, b and c"
    assert joined([str(number) for number in range(20)]).endswith("7 and 12 others")


# --- from and to the disk ---------------------------------------------------------------------


def test_a_run_without_counters_or_connections(tmp_path: Path) -> None:
    path = write_run(tmp_path, (NFT, XDP), lambda *_: 1.0, blocks=2)
    assert diagnose(read_run(path)) == []
    done = CliRunner().invoke(diagnose_command, [str(path)])
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
    done = CliRunner().invoke(diagnose_command, ["latest", "--results", str(tmp_path), "--json"])
    document = json.loads(done.output)
    assert (document["run"], document["samples"]) == (writer.run_id, 1)
    assert [each["name"] for each in document["causes"]] == [
        *("listen_overflow", "syn_retransmission")
    ]
    assert document["causes"][0]["samples"] == {"count": 1, "ids": ["001-0001"]}
    text = CliRunner().invoke(diagnose_command, ["latest", "--results", str(tmp_path)]).output
    assert "Problem: Listen queue overflow at server, in 1 of 1 sample: " in text
    assert "server: TcpExtListenOverflows 70" in text
    assert "client: connect times at 1 s (30)" in text
    assert "What helps: raise net.core.somaxconn" in text


def test_a_damaged_file(tmp_path: Path) -> None:
    path = write_run(tmp_path, (NFT,), lambda *_: 1.0, blocks=1)
    (path / "counters.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(BenchError, match="damaged"):
        diagnose(read_run(path))
