# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/findings.md, and figures in its sentences, are what the reference runs say.

python tests/unit/test_findings.py     writes them anew
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench.cells import title
from bench.compare import compare
from bench.reproduce.cells import CHAIN, LOOPBACK, REPORT
from bench.reproduce.examined import Examined
from bench.reproduce.plan import LEGACY
from bench.reproduce.record import Reproduction
from bench.reproduce.tally import SUM_ERRORS, SYN_AGAIN
from bench.runs import RunReader
from bench.sentences import figure, interval, times

REPOSITORY = Path(__file__).parents[2]
FINDINGS = REPOSITORY / "docs" / "findings.md"
RESULTS = REPOSITORY / "results"

Record = dict[str, Any]


def of(run: str) -> Record:
    """Return what `bench compare` says of a reference run."""
    return compare(RunReader.open(run, RESULTS))


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def per_hop() -> str:
    """Return what a hop costs by size and mode, one connection at a time."""
    lines = [
        line
        for line in of("reference-lab")["per_hop"]
        if line["concurrency"] == 1 and line["metric"] == "response_us"
    ]
    modes = ["xdp", "nft", "socat"]
    rows = []
    for size in sorted({line["size_bytes"] for line in lines}):
        costs = {line["label"]: line for line in lines if line["size_bytes"] == size}
        said = [f"{figure(costs[m]['slope_us'])} {interval(costs[m]['ci95'])}" for m in modes]
        than = [times(costs[m]["slope_us"] / costs["xdp"]["slope_us"]) for m in modes[1:]]
        blocks = {line["blocks"] for line in costs.values()}
        count = "-".join(map(str, sorted({min(blocks), max(blocks)})))
        rows.append([f"{size:,}", *said, *than, count])
    units = [f"{title(mode)}, µs" for mode in modes]
    return table(["bytes", *units, "nft / XDP", "socat / XDP", "n"], rows)


def rates() -> str:
    """Return transactions a second under load, at the longest chain."""
    cells = [cell for cell in of("reference-lab")["cells"] if cell["concurrency"] > 1]
    most = max(cell["hops"] for cell in cells)
    rows = []
    for size, many in sorted({(cell["size_bytes"], cell["concurrency"]) for cell in cells}):
        here = {
            cell["label"]: cell
            for cell in cells
            if (cell["size_bytes"], cell["concurrency"]) == (size, many)
            and cell["hops"] in (0, most)
        }
        said = []
        for mode in ("direct", "xdp", "nft", "socat"):
            found = here[mode]["transactions_per_s"]
            low, high = found["ci95"]
            said.append(f"{found['median']:,.0f} [{low:,.0f}, {high:,.0f}]")
        samples = sorted({cell["samples"] for cell in here.values()})
        counts = "-".join(map(str, sorted({samples[0], samples[-1]})))
        rows.append([f"{size:,}", str(many), *said, counts])
    return table(["bytes", "connections", "direct", "XDP", "nft", "socat", "n"], rows)


def offloads() -> str:
    """Return response times and their ratios with NICs as they are, against equal offloads."""
    result = of("reference-offloads")
    names = ["xdp", "nft", "xdp/native-offloads", "nft/native-offloads"]
    places = sorted({(cell["size_bytes"], cell["hops"]) for cell in result["cells"]})
    rows = []
    for size, hops in places:
        here = {
            cell["label"]: cell["response_us"]
            for cell in result["cells"]
            if (cell["size_bytes"], cell["hops"], cell["concurrency"]) == (size, hops, 1)
        }
        said = [f"{figure(here[name]['median'])} {interval(here[name]['ci95'])}" for name in names]
        rows.append([f"{size:,}", str(hops), *said, best(result, size, hops)])
    heads = ["XDP, µs", "nft, µs", "XDP, native offloads", "nft, native offloads"]
    return table(["bytes", "hops", *heads, "nft / XDP, native offloads"], rows)


def best(result: Record, size: int, hops: int) -> str:
    """Return the ratio of nft to XDP where NICs may merge and split, with its verdict on nft."""
    for pair in result["pairs"]:
        place = (pair["size_bytes"], pair["hops"], pair["metric"])
        labels = {pair["a"], pair["b"]}
        if place == (size, hops, "response_us") and labels == {
            "nft/native-offloads",
            "xdp/native-offloads",
        }:
            turned = pair["a"].startswith("xdp")
            ratio = 1 / pair["ratio"] if turned else pair["ratio"]
            low, high = pair["ci95"]
            ends = (1 / high, 1 / low) if turned else (low, high)
            other = {"faster": "slower", "slower": "faster"}
            verdict = other.get(pair["verdict"], pair["verdict"]) if turned else pair["verdict"]
            return f"{ratio:.2f} [{ends[0]:.2f}, {ends[1]:.2f}]: nft is {verdict}"
    return "-"


def bulk() -> str:
    """Return response times on a path without XDP, and on one with it."""
    runs = {"nft": "reference-bulk-stack", "xdp": "reference-bulk-xdp"}
    cells = {mode: list(of(run)["cells"]) for mode, run in runs.items()}
    rows = []
    for hops in sorted({cell["hops"] for cell in cells["nft"]}):
        found = [
            cell["response_us"]
            for side in cells.values()
            for cell in side
            if cell["hops"] == hops and cell["label"].endswith("native-offloads")
        ]
        said = [f"{figure(each['median'])} {interval(each['ci95'])}" for each in found]
        ratio = found[1]["median"] / found[0]["median"]
        rows.append([str(hops) if hops else "0 (direct)", *said, f"{ratio:.2f}"])
    return table(["hops", "nft, no XDP on the path, µs", "XDP, µs", "XDP / nft"], rows)


def again() -> str:
    """Return what the 2022 experiment took, in the report and made again."""
    examined = reproduced()
    sides = {
        "the report: socat": (REPORT, "socat"),
        "the report: XDP": (REPORT, "xdp"),
        "made again: socat on loopback": (LOOPBACK, "socat"),
        "made again: its filter on loopback": (LOOPBACK, LEGACY),
        "this project's filter on loopback": (LOOPBACK, "xdp"),
        "one host a hop: socat": (CHAIN, "socat"),
        "one host a hop: nft": (CHAIN, "nft"),
        "one host a hop: XDP": (CHAIN, "xdp"),
    }
    rows = []
    for head, (part, mode) in sides.items():
        said = []
        for count in (1, 4):
            row = examined.row(part, mode, count, 312)
            assert row is not None and row["made"] == 100
            short = f"{row['elapsed_s']:.2g}" if row["elapsed_s"] < 1 else f"{row['elapsed_s']:.1f}"
            text = f"{row['elapsed_s']:.2f}" if part == REPORT else short
            whole = part == REPORT or row["done"] == row["made"]
            said.append(text if whole else f"{text} ({row['done']} answered)")
        rows.append([head, *said])
    return table(["100 requests of 312 bytes, seconds", "1 forwarder", "4 forwarders"], rows)


@cache
def reproduced() -> Examined:
    """Return all that is known of the reference reproduction."""
    return Examined.of(Reproduction.open(RESULTS / "reference-reproduce"))


def phrases() -> list[str]:
    """Return what sentences of the document say of the reference runs."""
    floors = [
        each["noise_floor"]
        for each in of("reference-lab")["validity"]["noise_floors"]
        if (each["metric"], each["concurrency"]) == ("response_us", 1)
    ]
    tallies = reproduced().tallies
    legacy, ours, socat = (tallies[mode] for mode in (LEGACY, "xdp", "socat"))
    odd = ours.shares.waited + ours.shares.never
    return [
        f"XDP differed from itself by up to {100 * max(floors):.0f} % at one connection at a time",
        f"Of {legacy.shares.total:,} connections through the filter {legacy.shares.waited} waited "
        f"a second or more and {legacy.shares.never} were never open",
        f"with {legacy.per_100(SYN_AGAIN):.0f} repeated SYNs and "
        f"{legacy.per_100(SUM_ERRORS):.0f} wrong checksums for every 100 connections",
        f"no wrong checksum, and {odd} of {ours.shares.total:,} connections were late or failed",
        f"socat's {socat.shares.total:,} lost none",
    ]


TABLES: dict[str, Callable[[], str]] = {
    "per hop": per_hop,
    "rates": rates,
    "offloads": offloads,
    "bulk": bulk,
    "again": again,
}


def block(name: str) -> re.Pattern[str]:
    """Return what finds a table in the document."""
    return re.compile(rf"(?<=<!-- table: {name} -->\n\n).*?(?=\n<!-- end -->)", re.DOTALL)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_what_its_run_says(name: str) -> None:
    (found,) = block(name).findall(FINDINGS.read_text())
    assert found == TABLES[name](), "python tests/unit/test_findings.py"


def test_sentences_have_the_figures_of_the_runs() -> None:
    text = " ".join(FINDINGS.read_text().split())
    assert [each for each in phrases() if each not in text] == []
    ours, socat = (reproduced().tallies[mode] for mode in ("xdp", "socat"))
    assert ours.rise(SUM_ERRORS) == 0
    assert socat.shares.waited == socat.shares.never == 0


def main() -> None:
    """Write the tables into the document."""
    text = FINDINGS.read_text()
    for name, made in TABLES.items():
        text = block(name).sub(lambda _, made=made: made(), text)  # type: ignore[misc]
    FINDINGS.write_text(text)


if __name__ == "__main__":
    main()
