# SPDX-License-Identifier: Apache-2.0
"""The whole path over real kernels and virtio NICs: provision, look, measure, refuse, undo."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.lab.conftest import wait_until
from tests.valid import require_valid
from tests.vm.conftest import Machines

_HOPS = ("hop1", "hop2")
_REQUESTS = 20
_FORWARDING = "/proc/sys/net/ipv4/conf/eth1/forwarding"


@pytest.fixture(scope="module")
def deployed(machines: Machines) -> Machines:
    """The chain after `bench deploy` by the inventory's bare name."""
    done = machines.bench("deploy", "--inventory", "lab.ini")
    assert done.status == 0, done.stderr
    return machines


@pytest.fixture(scope="module")
def results(deployed: Machines) -> Path:
    """The folder of a small run of every mode."""
    done = deployed.bench(
        *("run", "--mode", "direct,socat,nft,xdp", "--hops", "1-2", "--size", "624,9984"),
        *("--concurrency", "1", "--requests", str(_REQUESTS), "--blocks", "1", "--no-aa"),
        limit_s=600,
    )
    assert done.status == 0, done.stderr
    # By SHA-256, through direct and through each mode with one hop and with two.
    assert "every payload verified through 7 ways" in done.stderr
    (folder,) = (deployed.checkout / "results").glob("[0-9]*-*")
    return folder


def _facts(results: Path) -> dict[str, Any]:
    run = json.loads((results / "run.json").read_text())
    facts: dict[str, Any] = run["host_facts"]
    return facts


def test_vagrant_says_what_machines_run_on(machines: Machines) -> None:
    assert re.search(
        r"hopbench: machines run by (KVM|software emulation, because .+)", machines.said
    )


def test_vagrant_up_provisions_every_machine(machines: Machines) -> None:
    recap = dict(re.findall(r"^(\S+) +: ok=.*failed=(\d+)", machines.said, re.MULTILINE))
    assert recap == dict.fromkeys(("client", *_HOPS, "server"), "0")
    for host in recap:
        assert "hop" in machines.on(host, "ls /opt/hopbench").split()


def test_ssh_verifies_host_keys(machines: Machines) -> None:
    folder = machines.checkout / ".vagrant" / "hopbench"
    known = (folder / "known_hosts").read_text()
    assert known.count(" ssh-ed25519 ") == len(_HOPS) + 2
    swapped = machines.checkout / "swapped"
    lines = [line.split(" ", 1) for line in known.splitlines()]
    swapped.write_text(f"{lines[0][0]} {lines[1][1]}\n")
    done = machines.run(
        *("ssh", "-F", folder / "ssh_config", "-o", f"UserKnownHostsFile={swapped.name}"),
        *("client", "true"),
        limit_s=60,
    )
    assert done.status == 255
    assert "Host key verification failed" in done.stderr


def test_second_deploy_changes_nothing(deployed: Machines) -> None:
    done = deployed.bench("deploy", "--inventory", "lab.ini")
    assert done.status == 0, done.stderr
    assert "deploy: 0 changed" in done.stderr + done.stdout
    assert "… changed" not in done.stderr + done.stdout


def test_check_mode_has_nothing_to_change(deployed: Machines) -> None:
    done = deployed.bench("deploy", "--inventory", "lab.ini", "--check")
    assert done.status == 0, done.stderr
    assert "… changed" not in done.stderr + done.stdout


def test_doctor_sees_a_firewall_in_the_way(deployed: Machines) -> None:
    deployed.on(
        "hop1",
        "nft add table inet guard && nft add chain inet guard forward"
        " { type filter hook forward priority 0\\; policy drop\\; }",
    )
    try:
        done = deployed.bench("doctor", "--inventory", "lab.ini")
    finally:
        deployed.on("hop1", "nft delete table inet guard")
    assert re.search(r"hop1: .*guard", done.stdout), done.stdout


def test_services_are_neither_started_nor_enabled(deployed: Machines) -> None:
    assert deployed.on("server", "systemctl is-enabled nginx || true").strip() == "disabled"
    assert deployed.on("server", "systemctl is-active nginx || true").strip() == "inactive"


def test_doctor_finds_nothing_in_the_way(deployed: Machines) -> None:
    done = deployed.bench("doctor", "--inventory", "lab.ini")
    assert done.status == 0, done.stdout + done.stderr
    assert "problem" not in done.stdout
    assert "known to run XDP natively" in done.stdout
    for hop in _HOPS:
        assert f"{hop}: eth1 (virtio_net)" in done.stdout
    assert "share queues" not in done.stdout
    # The client's ports are not those of the hops.
    assert "ip_local_port_range" not in done.stdout


def test_every_hop_attached_natively_to_virtio(results: Path) -> None:
    facts = _facts(results)
    for hop in _HOPS:
        assert facts[hop]["nic"]["driver"] == "virtio_net"
        assert facts[hop]["forwarders"]["xdp native"]["attach"] == "native"
    # Machines of their own, not one kernel with several names.
    assert len({each["boot_id"] for each in facts.values()}) == len(_HOPS) + 2


def test_samples_are_complete_and_valid(results: Path) -> None:
    run = json.loads((results / "run.json").read_text())
    assert run["status"] == "complete"
    samples = pd.read_csv(results / "samples.csv")
    measured = samples[~samples.warmup]
    cells = measured[["mode", "hops", "size_bytes"]]
    wanted = {("direct", 0)} | {(mode, hops) for mode in ("socat", "nft", "xdp") for hops in (1, 2)}
    assert {tuple(row) for row in cells.itertuples(index=False)} == {
        (*each, size) for each in wanted for size in (624, 9984)
    }
    assert measured.failed.sum() == 0
    assert (measured.successful == _REQUESTS).all()
    require_valid(measured)


def test_every_connection_was_timed(results: Path) -> None:
    connections = pd.read_parquet(results / "connections.parquet")
    samples = pd.read_csv(results / "samples.csv").set_index("sample")
    count = connections.groupby("sample").size()
    assert (count.reindex(samples.index) == samples.timed).all()
    valid = samples[samples.valid]
    assert (valid.timed == valid.transactions).all()
    opened = connections[connections.connect_us.notna()]
    assert (opened.response_us >= opened.connect_us).all()


def test_counters_of_every_hop_reconcile(results: Path) -> None:
    counters = pd.read_parquet(results / "counters.parquet").set_index(["sample", "host"])
    samples = pd.read_csv(results / "samples.csv").set_index("sample")
    for name, sample in samples.iterrows():
        for hop in _HOPS[: sample.hops]:
            counted = counters.loc[(name, hop)]
            # A SYN that the client repeats may be a flow of its own to conntrack: a packet that the
            # server's TIME_WAIT refused has ended the first.
            repeated = counters.loc[(name, "client")].TcpExtTCPSynRetrans
            opened = counted.forwarder_flows_opened - sample.transactions
            assert 0 <= opened <= repeated, (name, hop)
            # What the driver says of itself: every packet of these flows met the program there.
            queues = counted.filter(regex=r"ethtool_rx_queue_\d+_xdp_packets").sum()
            if sample["mode"] == "xdp":
                passed = counted.forwarder_forwarded_packets + counted.forwarder_returned_packets
                assert queues >= passed > 2 * sample.transactions, (name, hop)
            else:
                assert queues == 0, (name, hop)


def test_one_mode_after_the_other_compares(deployed: Machines, results: Path) -> None:
    """As the README has it: two runs of a mode each, then compare."""
    found: list[str] = []
    for mode in ("xdp", "nft"):
        done = deployed.bench(
            *("run", "--mode", mode, "--hops", "1", "--size", "624", "--concurrency", "1"),
            *("--requests", str(_REQUESTS), "--blocks", "2", "--no-aa"),
        )
        assert done.status == 0, done.stderr
        found.append(max((deployed.checkout / "results").glob("[0-9]*-*")).name)
    done = deployed.bench("compare", found[0], found[1], "--json")
    assert done.status == 0, done.stderr
    (cell,) = [
        cell
        for cell in json.loads(done.stdout)["other"]["cells"]
        if cell["metric"] == "response_us"
    ]
    assert (cell["label"], cell["other_label"], cell["hops"]) == ("xdp", "nft", 1)
    assert cell["ratio"] > 0


def test_a_nic_that_cannot_attach_natively_is_refused(deployed: Machines, results: Path) -> None:
    """A macvlan has no XDP of its own: its driver takes part in nothing but the generic kind."""
    before = set((deployed.checkout / "results").iterdir())
    folder = deployed.checkout / ".vagrant" / "hopbench"
    text = (folder / "lab.ini").read_text()
    other = folder / "refused.ini"
    other.write_text(re.sub(r"^(hop2 .*)$", r"\1 data_nic=plain0", text, flags=re.MULTILINE))
    address = re.search(r"^hop2 .*data_ip=(\S+)", text, re.MULTILINE)[1]  # type: ignore[index]
    deployed.on(
        "hop2",
        "ip link add link eth1 name plain0 type macvlan mode bridge && ip link set plain0 up"
        f" && ip address del {address}/24 dev eth1 && ip address add {address}/24 dev plain0"
        " && sysctl -q -w net.ipv4.conf.plain0.forwarding=1",
    )
    try:
        done = deployed.bench(
            *("run", "-i", other, "--mode", "xdp", "--hops", "1-2", "--size", "624"),
            *("--requests", "20", "--blocks", "1", "--no-aa", "--offloads", "native"),
        )
    finally:
        deployed.on("hop2", f"ip link del plain0 && ip address add {address}/24 dev eth1")
    assert done.status == 1
    assert "hop2: plain0: its driver macvlan refuses XDP in native mode" in done.error, done.error
    for folder in set((deployed.checkout / "results").iterdir()) - before:
        # What is kept says why, and holds no sample.
        assert not (folder / "samples.csv").exists() or pd.read_csv(folder / "samples.csv").empty


def test_a_machine_that_loses_its_power_is_named(
    deployed: Machines, results: Path, tmp_path: Path
) -> None:
    """In mid-run; once it is back, nothing has to be cleaned, and the run is finished."""
    before, log = set((deployed.checkout / "results").iterdir()), tmp_path / "log"
    process = deployed.start_bench(
        *("run", "--mode", "xdp", "--hops", "2", "--size", "624", "--concurrency", "1"),
        *("--requests", str(_REQUESTS), "--blocks", "30", "--no-aa"),
        log=log,
    )
    try:
        assert wait_until(lambda: "3/30 block" in log.read_text(), 300), log.read_text()
        deployed.power_off("hop2")
        begin = time.monotonic()
        assert wait_until(lambda: "hop2: " in log.read_text().partition("3/30")[2], 30)
        noticed_s = time.monotonic() - begin
        print(f"noticed after {noticed_s:.1f} s")
        assert noticed_s < 15
        assert process.wait(timeout=120) == 1
    finally:
        process.kill()
        process.wait()
    # Whichever is noticed first.
    why = r"bench: hop2: (SSH: no sign of life|no answer from the agent within) "
    assert re.match(why, log.read_text().splitlines()[-1])
    (folder,) = set((deployed.checkout / "results").iterdir()) - before
    up = deployed.run("vagrant", "up", "--no-provision", "hop2", limit_s=400)
    assert up.status == 0, up.stdout[-2000:] + up.stderr[-2000:]
    done = deployed.bench("clean", "-i", "lab.ini")
    assert done.status == 0, done.stderr
    assert deployed.bench("deploy", "-i", "lab.ini").status == 0
    done = deployed.bench("run", "--resume", folder.name, "--blocks", "5")
    assert done.status == 0, done.stderr
    run = json.loads((folder / "run.json").read_text())
    assert run["status"] == "complete"
    assert pd.read_csv(folder / "samples.csv")["sample"].is_unique


def test_undeploy_puts_everything_back(deployed: Machines, results: Path) -> None:
    assert deployed.on("hop1", f"cat {_FORWARDING}").strip() == "1"
    done = deployed.bench("undeploy", "--inventory", "lab.ini")
    assert done.status == 0, done.stderr
    for host in ("client", *_HOPS, "server"):
        assert deployed.on(host, "ls -d /opt/hopbench 2>/dev/null || echo gone").strip() == "gone"
    for hop in _HOPS:
        assert deployed.on(hop, f"cat {_FORWARDING}").strip() == "0"
        assert "xdp" not in deployed.on(hop, "ip link show eth1")
        assert deployed.on(hop, "nft list tables").strip() == ""
