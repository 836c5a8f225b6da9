# SPDX-License-Identifier: Apache-2.0
"""What the connection timer costs: siege with it and without, in pairs of random order.

    bench lab up && bench deploy -i local && .venv/bin/python tools/timer_cost.py local

Without it, its program is not at the tracepoint at all. siege's own clock is too coarse for this:
what is compared is the time that the siege process ran, over the transactions it made.
"""

from __future__ import annotations

import random
import sys

from bench.cells import Cell
from bench.inventory import load
from bench.judging import judge
from bench.session import Session
from bench.stats import bootstrap_median, median, paired_ratio

PAIRS = 30
CELLS = (
    Cell("direct", "", 0, 624, 1, 5000),
    Cell("direct", "", 0, 624, 25, 10000),
    Cell("xdp", "native", 3, 624, 25, 10000),
)


def measure(session: Session, cell: Cell, pairs: int) -> dict[bool, dict[int, float]]:
    """Return {with the timer: {pair: µs of siege's run time a transaction}}."""
    order = random.Random(1)
    found: dict[bool, dict[int, float]] = {True: {}, False: {}}
    for pair in range(pairs + 1):
        for timed in order.sample([True, False], 2):
            raw = session.sample(cell, timer=timed)
            sample = judge(cell, 1, 1, raw)
            if not sample.valid:
                print(f"left out: {sample.invalid_reason}", file=sys.stderr)
            elif pair:  # the first warms up
                found[timed][pair] = raw.wall_s / cell.transactions * 1e6
    return found


def main(inventory: str, pairs: int) -> None:
    """Print medians and their ratio for each cell."""
    with Session(load(inventory), 3, ["xdp"], timer=True) as session:
        for cell in CELLS:
            found = measure(session, cell, pairs)
            with_us, without_us = (list(found[timed].values()) for timed in (True, False))
            ratio = paired_ratio(found[True], found[False])
            assert ratio is not None
            print(
                f"{cell.mode}, {cell.hops} hops, c={cell.concurrency}: with "
                f"{median(with_us):.2f} µs {bootstrap_median(with_us)}, without "
                f"{median(without_us):.2f} µs {bootstrap_median(without_us)}, ratio "
                f"{ratio.value:.4f} {ratio.interval}, n = {ratio.n} pairs"
            )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else PAIRS)
