# SPDX-License-Identifier: Apache-2.0
"""What a reproduction measures, within which times, and how few requests a slow cell gets."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.cells import PAYLOAD_SIZES, Cell
from bench.sweep import Sweep, cross, with_twins

LEGACY, TODAY = "legacy", "legacy-today"
LEGACY_MODES = (LEGACY, TODAY)
CHAIN_MODES = ("direct", "socat", "nft", "xdp")

FEWEST_REQUESTS = 8
"""A cell of the 2022 filter with fewer says nothing, and is left out."""

# Of 100 requests through the 2022 filter, 30 to 50 take a second longer: until it is measured.
_FIRST_PACE_S = 0.5
# What a part that is about to end has for it, as a share of the whole time.
_GRACE = 0.04


@dataclass(frozen=True)
class Plan:
    """A reproduction before it begins.

    sizes_bytes, forwarders: of everything but what is said otherwise. legacy_sizes,
    legacy_forwarders: of the 2022 filter. timeout_s: after which siege gives a silent connection
    up. sample_s: after which a sample is cut off. total_s: how long the command may take;
    others_until_s, loopback_until_s, chain_until_s: by when, from its start, the loopback's quick
    modes, the loopback and the chain have to be done. today_s: what the filter with today's
    timestamps gets of that.
    """

    quick: bool
    seed: int
    sizes_bytes: tuple[int, ...]
    forwarders: tuple[int, ...]
    legacy_sizes: tuple[int, ...]
    legacy_forwarders: tuple[int, ...]
    requests: int
    today_requests: int
    timeout_s: int
    sample_s: int
    loopback_blocks: int
    chain_blocks: int
    total_s: float
    others_until_s: float
    loopback_until_s: float
    chain_until_s: float
    today_s: float
    chain_forwarders: tuple[int, ...]
    chain_sizes: tuple[int, ...]

    @property
    def grace_s(self) -> float:
        """How much later than planned a part is stopped in mid-sample."""
        return _GRACE * self.total_s

    @property
    def limits(self) -> dict[str, float]:
        """The bounds as reproduce.json has them."""
        return {
            "timeout_s": self.timeout_s,
            "sample_s": self.sample_s,
            "total_s": self.total_s,
            "others_until_s": self.others_until_s,
            "loopback_until_s": self.loopback_until_s,
            "chain_until_s": self.chain_until_s,
        }


def full(seed: int) -> Plan:
    """Return the plan of half an hour."""
    every = (1, 2, 3, 4)
    return Plan(
        quick=False,
        seed=seed,
        sizes_bytes=PAYLOAD_SIZES,
        forwarders=every,
        legacy_sizes=PAYLOAD_SIZES,
        legacy_forwarders=every,
        requests=100,
        today_requests=12,
        timeout_s=5,
        sample_s=120,
        loopback_blocks=3,
        chain_blocks=10,
        total_s=1800.0,
        others_until_s=240.0,
        loopback_until_s=840.0,
        chain_until_s=1620.0,
        today_s=120.0,
        chain_forwarders=every,
        chain_sizes=PAYLOAD_SIZES,
    )


def quick(seed: int) -> Plan:
    """Return the plan of three minutes."""
    some = (312, 9984, 2555904)
    return Plan(
        quick=True,
        seed=seed,
        sizes_bytes=some,
        forwarders=(1, 2, 3, 4),
        legacy_sizes=some,
        legacy_forwarders=(1, 4),
        requests=100,
        today_requests=6,
        timeout_s=4,
        sample_s=20,
        loopback_blocks=1,
        chain_blocks=2,
        total_s=180.0,
        others_until_s=60.0,
        loopback_until_s=100.0,
        chain_until_s=150.0,
        today_s=24.0,
        chain_forwarders=(1, 4),
        chain_sizes=some,
    )


def loopback_sweep(plan: Plan) -> Sweep:
    """Return the cells of the loopback: every block has the quick ones, the first has all."""
    users, requests = (1,), plan.requests
    cells = [
        *cross(("direct", "socat"), (), plan.forwarders, plan.sizes_bytes, users, requests),
        *cross(("xdp",), ("generic",), plan.forwarders, plan.sizes_bytes, users, requests),
    ]
    cells += [
        Cell(LEGACY, "generic", count, size, 1, requests)
        for count in plan.legacy_forwarders
        for size in plan.legacy_sizes
    ]
    ends = dict.fromkeys((plan.legacy_forwarders[0], plan.legacy_forwarders[-1]))
    smallest = plan.legacy_sizes[0]
    cells += [Cell(TODAY, "generic", count, smallest, 1, plan.today_requests) for count in ends]
    return Sweep(tuple(cells), plan.loopback_blocks, plan.seed)


def chain_sweep(plan: Plan) -> Sweep:
    """Return the cells of the chain of hosts."""
    cells = cross(
        CHAIN_MODES, ("native",), plan.chain_forwarders, plan.chain_sizes, (1,), plan.requests
    )
    sweep = Sweep(cells, plan.chain_blocks, plan.seed)
    return sweep if plan.quick else with_twins(sweep)


def one_block(sweep: Sweep) -> Sweep:
    """Return the sweep with one block."""
    return replace(sweep, blocks=1)


def legacy_order(cells: tuple[Cell, ...]) -> list[Cell]:
    """Return the 2022 filter's cells in the order that a budget is spent in.

    First those of the smallest payload, which get all of their requests: what the report's table
    shows hardly depends on anything else. Then the largest, and so on inwards.
    """
    sizes = sorted({cell.size_bytes for cell in cells})
    ranks = {size: min(at, len(sizes) - at - 0.5) for at, size in enumerate(sizes)}
    return sorted(cells, key=lambda cell: (ranks[cell.size_bytes], cell.hops))


def affordable(asked: int, left_s: float, cells_left: int, pace_s: float | None) -> int:
    """Return how many requests a cell of the 2022 filter may have, 0 for none at all.

    left_s: what is left of the time for all of them. cells_left: how many share it, this one
    included. pace_s: seconds a request has taken so far, None before the first.
    """
    share_s = max(0.0, left_s) / max(1, cells_left)
    count = int(share_s / (pace_s or _FIRST_PACE_S))
    if count >= asked:
        return asked
    if count >= FEWEST_REQUESTS:
        return count
    # Rather some cells than all of them with too little to say.
    enough = left_s >= FEWEST_REQUESTS * (pace_s or _FIRST_PACE_S)
    return min(asked, FEWEST_REQUESTS) if enough else 0


def with_requests(sweep: Sweep, cell: Cell, requests: int) -> tuple[Sweep, Cell]:
    """Return the sweep with other requests for one cell, and that cell."""
    changed = replace(cell, requests=requests)
    cells = tuple(changed if each.key == cell.key else each for each in sweep.cells)
    return replace(sweep, cells=cells), changed


def few_requests_text(cells: list[Cell], asked: int) -> str:
    """Say which cells of the 2022 filter had fewer requests than asked for."""
    fewest, most = min(c.requests for c in cells), max(c.requests for c in cells)
    count = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    return (
        f"the 2022 filter on loopback: {count} instead of {asked} requests in {len(cells)} "
        f"{'cell' if len(cells) == 1 else 'cells'}, for what its lost packets take of the time"
    )


def left_out_text(what: str, cells: list[Cell]) -> str:
    """Say which cells were not measured for want of time."""
    sizes = sorted({cell.size_bytes for cell in cells})
    hops = sorted({cell.hops for cell in cells})
    return (
        f"{what}: {len(cells)} {'cell was' if len(cells) == 1 else 'cells were'} not measured "
        f"for want of time (forwarders {', '.join(map(str, hops))}; "
        f"sizes {', '.join(map(str, sizes))} B)"
    )


def blocks_text(what: str, made: int, planned: int) -> str:
    """Say that there are fewer blocks than planned."""
    return f"{what}: {made} of {planned} blocks for want of time"
