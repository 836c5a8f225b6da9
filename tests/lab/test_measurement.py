# SPDX-License-Identifier: Apache-2.0
"""What a run leaves to believe it by: connections, counters, order, findings, changes."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.lab.model import Lab
from bench.runs import RunReader
from tests.lab.conftest import bench, differences, inside, machine, start_bench, wait_until
from tests.valid import require_valid

SMALL = ("--size", "624", "--requests", "60")


def run_of(folder: Path) -> RunReader:
    """Return the one run in a folder."""
    return RunReader.open("latest", folder)


def connections_of(run: RunReader) -> pd.DataFrame:
    """Return connections.parquet as any user of pandas would read it."""
    return pd.read_parquet(run.path / "connections.parquet")


@pytest.fixture(scope="module")
def measured(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> RunReader:
    """A complete run of every mode, one and 25 at a time."""
    folder = tmp_path_factory.mktemp("results")
    done = bench(
        *("run", "-i", lab.name, "--mode", "direct,socat,nft,xdp", "--hops", "1,3"),
        *("--concurrency", "1,25", *SMALL, "--blocks", "2", "--seed", "5", "--output", folder),
    )
    assert done.status == 0, done.stderr
    return run_of(folder)


def test_every_transaction_is_a_connection(measured: RunReader) -> None:
    samples = measured.samples.set_index("sample")
    valid = require_valid(measured.samples).set_index("sample")
    counted = connections_of(measured).groupby("sample", observed=True).size()
    assert counted.to_dict() == samples["timed"].astype("int64").to_dict()
    assert (valid["timed"] == valid["transactions"]).all()
    assert (samples["lost"] == 0).all()


def test_its_figures_are_those_of_the_connections(measured: RunReader) -> None:
    comparison = json.loads(bench("compare", measured.path, "--json").stdout)
    samples = measured.samples[~measured.samples["warmup"] & ~measured.samples["twin"]]
    samples = samples[samples["valid"]]
    joined = connections_of(measured).merge(samples, on="sample")
    for cell in comparison["cells"]:
        own = joined[(joined["mode"] == cell["mode"]) & (joined["hops"] == cell["hops"])]
        own = own[own["concurrency"] == cell["concurrency"]]
        for metric in ("response_us", "connect_us"):
            expected = own.groupby("sample", observed=True)[metric].median().median()
            assert cell[metric]["median"] == pytest.approx(expected)


def test_counters_of_every_host_and_sample(measured: RunReader, lab: Lab) -> None:
    counters = pd.read_parquet(measured.path / "counters.parquet")
    samples = measured.samples.set_index("sample")
    hosts: dict[str, set[str]] = counters.groupby("sample")["host"].agg(set).to_dict()
    for name, sample in samples.iterrows():
        hops = {f"hop{number}" for number in range(1, sample["hops"] + 1)}
        assert hosts[str(name)] == {"client", "server"} | hops
    client = counters[counters["host"] == "client"].set_index("sample")
    opened = client["TcpActiveOpens"].astype("int64")
    assert (opened == samples.loc[opened.index, "transactions"]).all()
    for column in ("TcpExtTCPSynRetrans", "cpu_steal_s", "nic_rx_bytes", "context_switches"):
        assert (client[column] >= 0).all(), column
    hop = counters[counters["host"] == "hop1"].set_index("sample")
    assert (hop["forwarder_flows_opened"] >= 0.99 * samples.loc[hop.index, "transactions"]).all()
    wall_s = samples.loc[client.index, "wall_s"]
    # Read just before and just after: nothing of what is around a sample is in it.
    assert (client["monotonic_s"] >= wall_s).all()
    assert (client["monotonic_s"] - wall_s < 0.1).mean() > 0.9


def test_the_order_and_the_twins(measured: RunReader) -> None:
    cells = measured.cells
    samples = measured.samples
    assert Counter((cell.size_bytes, cell.concurrency) for cell in cells if cell.twin) == {
        (624, 1): 1,
        (624, 25): 1,
    }
    for block, order in enumerate(measured.meta["order"], start=1):
        made = samples[samples["block"] == block].sort_values("position")
        expected = [cells[place].key for place in order]
        keys = zip(
            *(made[name] for name in ("mode", "attach", "offloads", "twin", "hops")),
            *(made[name] for name in ("size_bytes", "concurrency")),
            strict=True,
        )
        assert list(keys) == expected
    assert (samples[samples["warmup"]]["block"] == 0).all()
    assert samples["warmup"].sum() == len(cells)


def test_host_facts_before_and_after(measured: RunReader) -> None:
    before, after = measured.meta["host_facts"], measured.meta["host_facts_after"]
    assert set(before) == set(after) == {"client", *(f"hop{i}" for i in (1, 2, 3)), "server"}
    for name, facts in before.items():
        assert facts["kernel"] == after[name]["kernel"]
        assert facts["nic"]["driver"] == "veth"
        assert facts["offloads"]["equal"], name
        assert "clang" in json.dumps(facts), "a tool that is missing is null, not absent"
    # The load of this machine's tests may differ; what the run itself sets may not.
    assert not [text for text in measured.meta["changes"] if "offloads" in text or "gro" in text]


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return samples.csv's rows as they are."""
    with (path / "samples.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_killed_run_is_resumed(lab: Lab, tmp_path: Path) -> None:
    before = machine()
    process = start_bench(
        *("run", "-i", lab.name, "--mode", "nft,xdp", "--hops", "1-2", *SMALL),
        *("--blocks", "10", "--seed", "9", "--output", tmp_path),
        cwd=tmp_path,
    )
    # Five cells warm up; then two blocks and a bit. Most of it, which is seconds, is still to come.
    assert wait_until(lambda: _rows(tmp_path) >= 5 + 12, 120)
    process.kill()
    process.communicate(timeout=10)
    path = next(tmp_path.glob("*/run.json")).parent
    assert json.loads((path / "run.json").read_text())["status"] == "running"
    earlier = rows_of(path)
    order = json.loads((path / "run.json").read_text())["order"]
    # What there is can be read and compared.
    assert bench("show", path).status == 0
    assert differences(before) == {}

    done = bench("run", "-i", lab.name, "--resume", path)
    assert done.status == 0, done.stderr
    run = RunReader.open(path, tmp_path)
    assert (run.meta["status"], run.meta["order"]) == ("complete", order)
    rows = {row["sample"]: row for row in rows_of(path)}
    assert len(rows) == len(rows_of(path))
    assert [rows[row["sample"]] for row in earlier] == earlier
    made = [row for row in rows.values() if row["warmup"] == "false"]
    assert len(made) == 10 * len(run.cells)
    valid = require_valid(run.samples)
    counted = connections_of(run).groupby("sample", observed=True).size()
    assert (counted.loc[valid["sample"]] == 60).all()
    assert set(counted.index) == set(rows)
    assert set(pd.read_parquet(path / "counters.parquet")["sample"]) == set(rows)
    assert not list((path / "raw").glob("connections/*")) + list((path / "raw").glob("counters/*"))
    again = bench("run", "-i", lab.name, "--resume", path)
    assert (again.status, "lacks no sample" in again.error) == (1, True)
    more = bench("run", "-i", lab.name, "--resume", path, "--blocks", "11")
    assert more.status == 0, more.stderr
    assert len([row for row in rows_of(path) if row["block"] == "11"]) == len(run.cells)
    assert differences(before) == {}


def _rows(folder: Path) -> int:
    return sum(len(file.read_text().splitlines()) - 1 for file in folder.glob("*/samples.csv"))


def test_resumed_on_another_chain_it_is_refused(
    measured: RunReader, lab: Lab, tmp_path: Path
) -> None:
    meta = json.loads((measured.path / "run.json").read_text())
    meta["chain"]["hops"][0]["data_nic"] = "eth7"
    other = tmp_path / measured.path.name
    shutil.copytree(measured.path, other)
    (other / "run.json").write_text(json.dumps(meta))
    done = bench("run", "-i", lab.name, "--resume", other, "--blocks", "3")
    assert (done.status, "eth7" in done.error) == (1, True), done.stderr


def test_blocks_are_added_until_intervals_are_narrow(lab: Lab, tmp_path: Path) -> None:
    begin = time.monotonic()
    done = bench(
        *("run", "-i", lab.name, "--mode", "nft,socat", "--hops", "2", *SMALL, "--blocks", "2"),
        *("--until-ci", "50%", "--time-limit", "60s", "--output", tmp_path),
    )
    assert done.status == 0, done.stderr
    assert time.monotonic() - begin < 75
    run = run_of(tmp_path)
    # An interval takes six blocks, whatever its width.
    assert run.meta["sweep"]["blocks"] >= 6
    assert len(run.meta["order"]) == run.meta["sweep"]["blocks"]
    assert run.meta["until_ci"] == {"half_width": 0.5, "limit_s": 60.0}
    assert "within ±50.0%" in done.stderr


def test_the_time_limit_ends_it(lab: Lab, tmp_path: Path) -> None:
    done = bench(
        *("run", "-i", lab.name, "--mode", "nft,xdp", "--hops", "1", *SMALL, "--blocks", "1"),
        *("--until-ci", "0.1%", "--time-limit", "6s", "--output", tmp_path),
    )
    assert done.status == 0, done.stderr
    assert "time limit" in done.stderr
    assert run_of(tmp_path).meta["status"] == "complete"


def test_both_offload_settings_in_one_run(lab: Lab, tmp_path: Path) -> None:
    hosts = [host.name for host in lab.hosts]
    before = {host: _features(lab, host) for host in hosts}
    done = bench(
        *("run", "-i", lab.name, "--mode", "nft,xdp", "--hops", "2", "--size", "159744"),
        *("--offloads", "equal,native", "--requests", "40", "--blocks", "2", "--output", tmp_path),
    )
    assert done.status == 0, done.stderr
    run = run_of(tmp_path)
    require_valid(run.samples)
    assert set(run.samples["offloads"]) == {"equal", "native"}
    counters = pd.read_parquet(run.path / "counters.parquet").merge(run.samples, on="sample")
    hop = counters[(counters["host"] == "hop1") & (counters["mode"] == "nft")]
    sent = hop["IpExtOutOctets"] / hop["IpOutRequests"].clip(lower=1)
    assert len(sent) >= 4
    labels = {
        cell["label"] for cell in json.loads(bench("compare", run.path, "--json").stdout)["cells"]
    }
    assert labels == {"nft", "xdp", "nft/native-offloads", "xdp/native-offloads"}
    assert {host: _features(lab, host) for host in hosts} == before


def _features(lab: Lab, host: str) -> str:
    link = json.loads(inside(lab, host, "ip", "-json", "-details", "link", "show", "eth0"))[0]
    sizes = {key: value for key, value in link.items() if "gro" in key or "gso" in key}
    return inside(lab, host, "ethtool", "-k", "eth0") + json.dumps(sizes, sort_keys=True)


def test_without_the_timer(lab: Lab, measured: RunReader, tmp_path: Path) -> None:
    done = bench(
        *("run", "-i", lab.name, "--mode", "nft", "--hops", "1", *SMALL, "--blocks", "1"),
        *("--no-timer", "--no-aa", "--output", tmp_path),
    )
    assert done.status == 0, done.stderr
    run = run_of(tmp_path)
    assert not (run.path / "connections.parquet").exists()
    assert run.samples["timed"].isna().all()
    assert len(run.samples) == 2
    assert not json.loads(bench("compare", run.path, "--json").stdout)["validity"]["timer"]
    refused = bench("compare", run.path, measured.path)
    assert (refused.status, refused.stdout) == (1, "")


def test_what_would_spoil_figures_is_found_before(lab: Lab, tmp_path: Path) -> None:
    namespace = lab.namespace("hop1")
    tc: list[Any] = ["tc", "-n", namespace, "qdisc"]
    subprocess.run([*tc, "add", "dev", "eth0", "root", "handle", "5:", "htb"], check=True)
    try:
        done = bench(
            *("run", "-i", lab.name, "--mode", "nft", "--hops", "1", *SMALL, "--blocks", "1"),
            *("--output", tmp_path),
        )
    finally:
        subprocess.run([*tc, "del", "dev", "eth0", "root"], check=True)
    assert done.status == 0, done.stderr
    found = [each for each in run_of(tmp_path).meta["findings"] if "htb" in each["text"]]
    assert [(each["host"], bool(each["remedy"])) for each in found] == [("hop1", True)]
    assert "htb" in done.stderr


def test_what_changes_meanwhile_is_said(lab: Lab, tmp_path: Path) -> None:
    before = inside(lab, "server", "sysctl", "-n", "net.ipv4.tcp_timestamps").strip()
    process = start_bench(
        *("run", "-i", lab.name, "--mode", "nft", "--hops", "1", *SMALL, "--blocks", "20"),
        *("--output", tmp_path),
        cwd=tmp_path,
    )
    # The hosts have been looked at before the first sample, and seconds pass until the last.
    assert wait_until(lambda: _rows(tmp_path) >= 1, 120)
    inside(lab, "server", "sysctl", "-w", "net.ipv4.tcp_timestamps=0")
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        inside(lab, "server", "sysctl", "-w", f"net.ipv4.tcp_timestamps={before}")
    assert process.returncode == 0, errors
    changes = run_of(tmp_path).meta["changes"]
    assert any("server" in text and "tcp_timestamps" in text for text in changes), changes
