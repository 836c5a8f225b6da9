# SPDX-License-Identifier: Apache-2.0
"""A run that was interrupted, opened again for the samples it lacks."""

from __future__ import annotations

import csv
import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.cells import Cell, parse_blocks
from bench.chain import Chain
from bench.errors import BenchError, UsageError
from bench.results import COLUMNS, SAMPLES_FILE, SCHEMA_VERSION, Timing, describe_chain
from bench.runfiles import read_run, require_plain
from bench.runs import find_run
from bench.runwriter import RunWriter, describe_sweep
from bench.sweep import Sweep
from bench.untilci import Until

# What of a host has to be as it was, for its samples to be of the same cells.
_SAME = (
    "name",
    "data_nic",
    "port",
    "xdp_attach",
    "egress_nic",
    "nat_ports",
    "nat_flows",
    "nat_policy",
)


@dataclass(frozen=True)
class Resumed:
    """A run to go on with: its directory's writer, what it measures, what it has used so far.

    timer: whether its connections are timed.
    """

    writer: RunWriter
    sweep: Sweep
    timing: Timing
    meta: Mapping[str, Any]
    timer: bool

    @property
    def lacks(self) -> int:
        """How many samples are missing."""
        measured = sum(not name.startswith("000-") for name in self.writer.sample_ids)
        return max(0, self.sweep.blocks * len(self.sweep.cells) - measured)

    @property
    def blocks(self) -> int:
        """How many whole blocks there are."""
        return self.sweep.blocks - -(-self.lacks // len(self.sweep.cells))

    @property
    def complete(self) -> bool:
        """Whether the run ended as it should."""
        return bool(self.meta["status"] == "complete")

    @property
    def until(self) -> Until | None:
        """What decides how many blocks there are, None for a fixed number."""
        asked = self.meta["until_ci"]
        return Until(float(asked["half_width"]), float(asked["limit_s"])) if asked else None

    def begin(self, notes: tuple[str, ...], until: Until | None) -> None:
        """Write down that the run goes on, with which notes and for how long."""
        self.writer.update(
            status="running",
            ended_at=None,
            notes=[*self.meta["notes"], *notes],
            until_ci=until.record() if until else None,
            **describe_sweep(self.sweep),
        )


def reopen(reference: str, results_dir: Path) -> Resumed:
    """Open a run by path, id or `latest`. Raises BenchError for one that cannot be gone on with."""
    path = find_run(reference, results_dir)
    require_plain(path)
    meta, rows = read_run(path)
    if meta["schema_version"] != SCHEMA_VERSION:
        raise BenchError(
            f"{path} has results schema {meta['schema_version']}, which is read but not resumed",
            remedy="measure again",
        )
    sweep = Sweep(
        tuple(Cell(**cell) for cell in meta["sweep"]["cells"]),
        meta["sweep"]["blocks"],
        meta["seed"],
    )
    with (path / SAMPLES_FILE).open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))[1:]
    place = list(COLUMNS).index("sample")
    # A sample that came to nothing, because a host went away, is one that the run lacks.
    made = {
        row["sample"]
        for row in rows
        if row["wall_s"] is not None or row["transactions"] is not None
    }
    writer = RunWriter(path, meta, {line[place]: line for line in lines if line[place] in made})
    timing = {name: meta["timing"].get(name) for name in ("ready_s", "siege_s", "wall_s")}
    timer = not rows or any(row["timed"] is not None for row in rows)
    return Resumed(writer, sweep, Timing(**timing), meta, timer)


def with_blocks(resumed: Resumed, text: str | None) -> Resumed:
    """Return the run with as many blocks as `--blocks` says. Raises UsageError for too few."""
    if text is None:
        return resumed
    blocks = parse_blocks(text)
    begun = max((int(name.partition("-")[0]) for name in resumed.writer.sample_ids), default=0)
    if blocks < begun:
        raise UsageError(f"--blocks: run {resumed.writer.run_id} is in block {begun} already")
    return replace(resumed, sweep=replace(resumed.sweep, blocks=blocks))


def require_same_chain(resumed: Resumed, chain: Chain) -> tuple[str, ...]:
    """Return notes on how the chain differs from the run's without being another one.

    Raises BenchError when it is another one: its samples would not be of the same cells.
    """
    # As run.json has it: a pair of ports is a list there.
    then, now = resumed.meta["chain"], json.loads(json.dumps(describe_chain(chain)))
    if len(_hosts(now)) != len(_hosts(then)):
        raise BenchError(
            f"run {resumed.writer.run_id} was made on a chain of {len(_hosts(then))} hosts, "
            f"{chain.inventory} has {len(_hosts(now))}",
            remedy="resume it with the inventory it was made with",
        )
    for mine, theirs in zip(_hosts(now), _hosts(then), strict=True):
        for key in _SAME:
            if mine.get(key) != theirs.get(key):
                raise BenchError(
                    f"run {resumed.writer.run_id} had {key} {theirs.get(key)!r} where "
                    f"{chain.inventory} has {mine.get(key)!r}",
                    remedy="resume it with the inventory it was made with",
                )
    if _family(_hosts(now)) != _family(_hosts(then)):
        raise BenchError(
            f"run {resumed.writer.run_id} was made over IPv{_family(_hosts(then))}, "
            f"{chain.inventory} has IPv{_family(_hosts(now))}",
            remedy="resume it with the inventory it was made with",
        )
    moved = [
        mine["name"]
        for mine, theirs in zip(_hosts(now), _hosts(then), strict=True)
        if mine.get("data_ip") != theirs.get("data_ip")
    ]
    return (f"resumed with other addresses: {', '.join(moved)}",) if moved else ()


def _hosts(chain: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    try:
        hosts = [chain["client"], *chain["hops"], chain["server"]]
        _family(hosts)
    except (KeyError, TypeError, ValueError):
        raise BenchError(
            "the run's chain is not in its run.json", remedy="the run is damaged; measure again"
        ) from None
    return hosts


def _family(hosts: Sequence[Mapping[str, Any]]) -> int:
    """Return the version of the hosts' addresses, which are all of one family."""
    return {ipaddress.ip_address(str(host["data_ip"])).version for host in hosts}.pop()
