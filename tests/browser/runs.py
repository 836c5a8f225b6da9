# SPDX-License-Identifier: Apache-2.0
"""Runs whose pages are looked at: everything there is, next to nothing, and what strangers send."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import tables
from bench.cells import Cell
from bench.results import RUN_FILE, Sample, Timing
from bench.runs import REPRODUCE_FILE
from bench.sweep import Sweep, cross, with_twins
from tests.unit.synthetic import connections, sample, write_run

SCHEMA_1 = Path(__file__).parents[1] / "unit" / "data" / "schema1"
REPRODUCTION = Path(__file__).parents[2] / "results" / "reference-reproduce"
COST_US = {"direct": 0.0, "socat": 490.0, "nft": 34.0, "xdp": 6.5}
HOSTILE = (
    "<script>window.owned = 1; alert(1)</script>",
    '</style><img src=x onerror="window.owned = 1">',
    '"><svg onload="window.owned = 1">\'',
    "</title></script><a href='javascript:alert(1)'>{{ 7 * 7 }}{% raw %}",
    "Ωμέγα \N{RIGHT-TO-LEFT OVERRIDE}txet \N{BELL}\N{NULL} 名前 \ud800",
    "x" * 3000,
    '=HYPERLINK("http://example.com"),\'\n\r",;',
    "' autofocus onfocus='window.owned = 1' onmouseover=\"window.owned = 1\" tabindex=1 x=",
    "]]></text><script>window.owned = 1</script><!-- --!>&lt;script&gt;alert(1)&#60;/script>",
)


def whole(folder: Path) -> Path:
    """Return a run with four modes, two hop counts, and two sizes and loads."""
    cells = cross(("direct", "socat", "nft", "xdp"), ("native",), (1, 2), (624, 9984), (1, 25), 50)
    return _run(folder, cells, blocks=6, hops=2)


def smallest(folder: Path) -> Path:
    """Return a run of one mode, one hop and one block."""
    return _run(folder, cross(("xdp",), ("native",), (1,), (624,), (1,), 50), 1, 1, aa=False)


def interrupted(folder: Path) -> Path:
    """Return a run that was interrupted in its second block."""
    cells = cross(("direct", "nft"), ("native",), (1, 2), (624,), (1,), 50)
    return _run(folder, cells, 4, 2, aa=False, status="interrupted", missing=_after_second)


def invalid(folder: Path) -> Path:
    """Return a run without one valid sample."""
    cells = cross(("xdp", "nft"), ("native",), (1,), (624,), (1,), 50)
    return _run(folder, cells, 2, 1, aa=False, reason="no connection was established")


def longest(folder: Path) -> Path:
    """Return a run through 64 hops with IPv6 addresses."""
    return _run(folder, cross(("xdp",), ("native",), (1, 64), (624,), (1,), 50), 2, 64, aa=False)


def schema1(folder: Path) -> Path:
    """Return a run as the first version of hopbench wrote it."""
    return Path(shutil.copytree(SCHEMA_1, folder / "schema1"))


def hostile(folder: Path) -> Path:
    """Return a run whose every text is meant to break out of the page."""
    cells = cross(("direct", "nft"), ("native",), (1, 2), (624,), (1,), 50)
    path = _run(folder, cells, 6, 2, reason=HOSTILE[0], odd_only=True)
    meta = json.loads((path / RUN_FILE).read_text())
    names = {"client": HOSTILE[0], "hop1": HOSTILE[1], "hop2": HOSTILE[5], "server": HOSTILE[4]}
    chain = meta["chain"]
    for host in (chain["client"], *chain["hops"], chain["server"]):
        name = host["name"]
        host.update(name=names[name], data_nic=HOSTILE[2], data_ip=HOSTILE[3])
    chain["inventory"] = HOSTILE[3]
    for key in ("host_facts", "host_facts_after"):
        meta[key] = {names[name]: facts for name, facts in meta[key].items()}
        for facts in meta[key].values():
            facts.update(cpu=HOSTILE[0], kernel=HOSTILE[4], tools={HOSTILE[1]: HOSTILE[6]})
            facts["nic"]["driver"] = HOSTILE[1]
            facts["nic"]["offloads"] = {HOSTILE[2]: "on", "rx-gro-hw": HOSTILE[6]}
    meta["notes"] = list(HOSTILE)
    meta["changes"] = list(HOSTILE)
    meta["findings"] = [
        {"host": text, "level": "warning", "text": text, "remedy": text} for text in HOSTILE
    ]
    meta["versions"] = {text: text for text in HOSTILE}
    meta["git_commit"] = HOSTILE[2]
    meta["run_id"] = HOSTILE[1]
    # Modes are words, or the run is refused (bench/runfiles.py).
    (path / RUN_FILE).write_text(json.dumps(meta))
    return path


def reproduction(folder: Path) -> Path:
    """Return the reference reproduction with texts that are meant to break out of its page."""
    path = Path(shutil.copytree(REPRODUCTION, folder / "reproduction"))
    file = path / REPRODUCE_FILE
    meta = json.loads(file.read_text(encoding="utf-8"))
    hostile = {text: text for text in HOSTILE}
    meta.update(
        id=HOSTILE[0],
        cut=list(HOSTILE),
        notes=list(HOSTILE),
        versions=hostile,
        git_commit=HOSTILE[2],
        machine=dict.fromkeys(meta["machine"], HOSTILE[1]) | hostile,
    )
    file.write_text(json.dumps(meta))
    return path


RUNS: dict[str, Callable[[Path], Path]] = {
    each.__name__: each
    for each in (whole, smallest, interrupted, invalid, longest, schema1, hostile)
}


def _run(
    folder: Path,
    cells: Sequence[Cell],
    blocks: int,
    hops: int,
    *,
    aa: bool = True,
    status: Any = "complete",
    missing: Callable[[Cell, int], bool] | None = None,
    reason: str = "",
    odd_only: bool = False,
) -> Path:
    sweep = Sweep(tuple(cells), blocks, 1)
    cells = with_twins(sweep).cells if aa else sweep.cells
    places = {cell.key: number for number, cell in enumerate(cells, start=1)}

    def time_us(cell: Cell, block: int) -> float:
        cost = COST_US[cell.mode] * cell.hops * cell.concurrency**0.5
        noise = (places[cell.key] * 7 + block * 13) % 11
        return 100 + cell.size_bytes / 100 + cost + noise

    def took(cell: Cell, block: int) -> Sample:
        number = places[cell.key]
        made = sample(cell, block, number, time_us(cell, block) * cell.transactions / 1e6)
        if reason and not (odd_only and (block, number) != (1, 2)):
            return replace(made, invalid_reason=reason)
        return replace(made, timed=cell.transactions, lost=0)

    def times(cell: Cell, block: int) -> dict[str, Any]:
        seed = 100 * block + places[cell.key]
        return connections(
            cell.transactions, time_us(cell, block), users=cell.concurrency, spread=0.2, seed=seed
        )

    path = write_run(
        folder,
        cells,
        took,
        blocks=blocks,
        warmups=True,
        connections=times,
        status=status,
        timing=Timing(9.0, 100.0, 130.0),
        chain=_chain(hops),
        aa=aa,
        host_facts={name: _facts(name) for name in _names(hops)},
        host_facts_after={name: _facts(name) for name in _names(hops)},
        versions={"hopbench": "0.1.0", "python": "3.11.2"},
        findings=[
            {
                "host": "client",
                "level": "warning",
                "text": "load average 2.9 on 2 CPUs in the last minute",
                "remedy": "end what else runs before measuring",
            }
        ],
        notes=["the chain was cut down to what there is"],
    )
    if missing:
        _cut(path, cells, missing)
    _count(path, cells, blocks, hops)
    return path


def _after_second(cell: Cell, block: int) -> bool:
    return block > 2 or (block == 2 and cell.mode == "nft")


def _cut(path: Path, cells: Sequence[Cell], missing: Callable[[Cell, int], bool]) -> None:
    file = path / "samples.csv"
    head, *lines = file.read_text().splitlines()
    gone = {
        f"{block:03d}-{number:04d}"
        for block in range(1, 100)
        for number, cell in enumerate(cells, start=1)
        if missing(cell, block)
    }
    kept = [line for line in lines if line.split(",")[0] not in gone]
    file.write_text("\n".join([head, *kept]) + "\n")


def _count(path: Path, cells: Sequence[Cell], blocks: int, hops: int) -> None:
    for block in range(blocks + 1):
        for number, cell in enumerate(cells, start=1):
            made = float(cell.transactions)
            busy = {"cpu_system_s": 0.1, "cpu_softirq_s": 0.05, "cpu_user_s": 0.02, "cpu_idle_s": 1}
            rows: list[dict[str, Any]] = [
                {"host": "client", "role": "client", "TcpActiveOpens": made, **busy},
                {"host": "server", "role": "server", "TcpPassiveOpens": made, **busy},
            ]
            for hop in range(1, min(hops, cell.hops) + 1):
                counts = {
                    "flows_opened": made,
                    "forwarded_packets": 5 * made,
                    "returned_packets": 4 * made,
                    "dropped_no_port": 0.0,
                }
                named = {f"forwarder_{name}": value for name, value in counts.items()}
                rows.append({"host": f"hop{hop}", "role": "hop", **named, **busy})
            tables.add_counters(path, f"{block:03d}-{number:04d}", rows)
    tables.join(path)


def _names(hops: int) -> list[str]:
    return ["client", *(f"hop{number}" for number in range(1, hops + 1)), "server"]


def _chain(hops: int) -> dict[str, Any]:
    long = hops > 9

    def host(number: int, name: str, port: int) -> dict[str, Any]:
        address = f"2001:db8:1234:5678:9abc:def0:1:{number:x}" if long else f"198.18.1.{number + 1}"
        nic = {"data_ip": address, "data_nic": "eth0"}
        return {"name": name, **nic, "port": port, "xdp_attach": "native"}

    first, *middle, last = _names(hops)
    return {
        "inventory": "inventory.ini",
        "client": host(0, first, 0),
        "hops": [host(number, name, 7000) for number, name in enumerate(middle, start=1)],
        "server": host(hops + 1, last, 8000),
    }


def _facts(name: str) -> dict[str, Any]:
    return {
        "kernel": "6.18.44",
        "os": "Debian GNU/Linux 12 (bookworm)",
        "cpu": "AMD EPYC",
        "cpus": 2,
        "boot_id": "6926bc58-1527-4b0f-935d-d5a985693506",
        "topology": {"sockets": 1, "cores": 2, "threads": 2, "numa_nodes": 1},
        "memory": {"total_bytes": 25 << 30, "available_bytes": 20 << 30},
        "tools": {"siege": "4.0.7", "bpftool": None} if name == "client" else {"nft": "1.0.6"},
        "nic": {
            "driver": "veth",
            "speed_mbps": 10000,
            "mtu": 1500,
            "rx_queues": 1,
            "tx_queues": 1,
            "offloads": {"generic-receive-offload": "on", "tx-checksumming": "off"},
        },
    }
