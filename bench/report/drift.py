# SPDX-License-Identifier: Apache-2.0
"""Block by block: each sample against its cell's median, to see that nothing crept over the run."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from bench import stats
from bench.measured import Figures, measured
from bench.report import marks, series, style
from bench.report.document import Figure
from bench.report.figure import clean, figure
from bench.report.panels import arrange, chosen, name, sheet
from bench.runs import RunReader
from bench.sentences import counted

if TYPE_CHECKING:
    import pandas as pd

ONE_BLOCK = "No cell has valid samples in two blocks: whether anything crept cannot be seen."

_MOST_PANELS = 8
_MOST_DOTS = 2000
_MOST_BLOCKS = 100


def drift(run: RunReader) -> Figure | None:
    """Return ratios to a cell's median over blocks, a panel a mode; None for a single block.

    Raises BenchError when connections.parquet is damaged.
    """
    ratios = frame(measured(run))
    if ratios.empty:
        return None
    everything = style.ranked(ratios["label"])
    labels = [everything[at] for at in chosen(range(len(everything)), _MOST_PANELS)]
    ratios = ratios[ratios["label"].isin(labels)]
    blocks = series.distinct(ratios, "block")
    width = -(-len(blocks) // _MOST_BLOCKS)
    middles = by_block(ratios, width)
    stride = -(-len(ratios) // _MOST_DOTS)
    dots = ratios.iloc[::stride]
    shown = _one_frame(middles, dots)
    with style.rc():
        found = sheet(len(labels), columns=2)
        marks.counts(found.panels, blocks, 6)
        values = [*dots["ratio"], *middles["ratio"], *middles["lo"], *middles["hi"]]
        log = marks.scale(found.panels, "y", values, zero=False, log=_far(values))
        for ax, label in zip(found.panels, labels, strict=True):
            ax.set_title(name(label))
            ax.axhline(1.0, color=style.MUTED, linewidth=0.9)
            here, line = (each[each["label"] == label] for each in (dots, middles))
            look = style.look(label)
            ax.plot(
                here["block"], here["ratio"], linestyle="none", marker=".", markersize=4,
                color=look.colour, alpha=0.35,
            )  # fmt: skip
            marks.curve(ax, line, ("block", "ratio", "lo", "hi"), marks.line(label, markersize=5))
        found.label("block", "ratio to the cell's median")
        told = [
            f"{name(str(label))} from {rows['ratio'].min():.3f} to {rows['ratio'].max():.3f}"
            for label, rows in middles.groupby("label", sort=False)
        ]
        caption = (
            "Response time of each sample over the median of its cell: faint dots"
            + (f" (every {stride}th)" if stride > 1 else "")
            + ". Line: median over the cells of a mode in a block"
            + (f", {width} blocks taken together" if width > 1 else "")
            + f", n = {_range(middles['n'])} ratios, with its 95 % interval where there are 6 or "
            "more. Were the machine to grow slower during the run, the lines would rise."
            + (" The axis of ratios is logarithmic." if log else "")
            + (f" Drawn are {len(labels)} of {len(everything)} modes." * (labels != everything))
        )
        alt = (
            f"Response time by block, over the cell's median, in {counted(len(blocks), 'block')}: "
            f"block medians {series.listed(told)}."
        )
        return figure("drift", "Block by block", arrange(found), alt, caption, shown)


def frame(figures: Figures) -> pd.DataFrame:
    """Return a row a sample of cells that have two or more: its cell, block, and the ratio."""
    import pandas as pd

    rows = []
    for item in figures.cells:
        times_us = item.of("response_us")
        if len(times_us) < 2:
            continue
        middle_us = statistics.median(times_us.values())
        cell = item.cell
        place = (clean(cell.label), cell.hops, cell.size_bytes, cell.concurrency)
        rows += [(*place, block, us / middle_us) for block, us in sorted(times_us.items())]
    columns = ["label", "hops", "size_bytes", "concurrency", "block", "ratio"]
    return pd.DataFrame(rows, columns=columns)


def by_block(ratios: pd.DataFrame, width: int = 1) -> pd.DataFrame:
    """Return the median ratio of each mode in each block, or in each `width` blocks together.

    Columns: label, block (the first of those taken together), n, ratio, lo, hi.
    """
    import pandas as pd

    first = int(ratios["block"].min())
    bins = (ratios["block"] - first) // width * width + first
    rows = []
    for label in style.ranked(ratios["label"]):
        mine = ratios[ratios["label"] == label]
        for block, values in mine["ratio"].groupby(bins[mine.index]):
            found = values.tolist()
            ends = stats.bootstrap_median(found) or (math.nan, math.nan)
            rows.append((label, block, len(found), statistics.median(found), *ends))
    return pd.DataFrame(rows, columns=["label", "block", "n", "ratio", "lo", "hi"])


def _one_frame(middles: pd.DataFrame, dots: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    both = [middles.assign(of="block"), dots.assign(of="sample", n=1)]
    joined = pd.concat(both, ignore_index=True)
    return joined[["of", *(each for each in joined.columns if each != "of")]]


def _far(values: list[float]) -> bool:
    known = marks.finite(values)
    return max(known) / min(known) > 5


def _range(values: pd.Series[int]) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low} to {high}"
