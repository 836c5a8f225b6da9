# SPDX-License-Identifier: Apache-2.0
"""The verdict a person reads: tables and sentences made of nothing but a run's comparison."""

from __future__ import annotations

import os

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from bench.cells import title
from bench.compare import compare
from bench.plain import plain
from bench.runs import RunReader
from bench.sentences import (
    NONE,
    Axis,
    Record,
    axes,
    counted,
    facts,
    figure,
    interval,
    noise,
    of_axis,
    sentences,
    where,
)
from bench.verdict_tables import METRICS, columns, either, family, grids, probability, ratio

_COLUMNS = 110
_SHOWN = 12


def terminal() -> Console:
    """Return where to print a verdict: without a terminal rich would fold it at 80 columns."""
    known = os.isatty(1) or "COLUMNS" in os.environ
    return Console(width=None if known else _COLUMNS)


def full(run: RunReader, comparison: Record | None = None) -> Group:
    """Return the verdict of a run and what its odd numbers come from.

    comparison: what `compare` returns for the run, where it is there already. Raises BenchError
    when a file of the run is damaged.
    """
    from bench.diagnose import diagnose

    verdict = render(run.meta, compare(run) if comparison is None else comparison)
    return Group(verdict, *(Text(plain(f"Diagnosis: {cause.line()}")) for cause in diagnose(run)))


def render(run_meta: Record, comparison: Record) -> Group:
    """Return the verdict of a run: a block of tables for each size and concurrency, then words.

    run_meta is run.json, comparison what `bench.compare.compare` returns.
    """
    wanted = [
        (axis, metric)
        for axis in axes(comparison)
        for metric in ("response_us", "transactions_per_s")[: 1 if axis[1] == 1 else 2]
    ]
    parts: list[RenderableType] = [grids(comparison, wanted)]
    parts += [Padding(Text(line), (0, 0, 0, 2)) for line in sentences(comparison)]
    parts.append(Text())
    parts += [Text(line) for line in facts(run_meta, comparison)]
    parts += _warnings(comparison["validity"]["warnings"])
    return Group(*parts)


def render_pairs(comparison: Record) -> Group:
    """Return what the verdict leaves out: connect times, and every pair with its statistics."""
    timed = comparison["validity"]["timer"]
    parts: list[RenderableType] = []
    if timed:
        parts.append(grids(comparison, [(axis, "connect_us") for axis in axes(comparison)]))
    parts += [
        _family(comparison, axis, metric)
        for axis in axes(comparison)
        for metric in METRICS
        if of_axis(comparison["pairs"], axis, metric)
    ]
    return Group(*parts)


def render_other(comparison: Record) -> Group:
    """Return two runs side by side: shared cells, then what they say of modes and hops."""
    run, other = comparison["run"], comparison["other"]
    unmatched = other["unmatched"]
    parts: list[RenderableType] = [
        _other_cells(comparison),
        Text(f"In one of the runs only: {counted(unmatched, 'cell')}." if unmatched else ""),
        _costs(comparison),
        _ratios(comparison),
    ]
    for name, validity in ((run, comparison["validity"]), (other["run"], other["validity"])):
        parts += _warnings([f"{name}: {warning}" for warning in validity["warnings"]])
    shown = other["warnings"][:_SHOWN]
    if more := other["warnings"][_SHOWN:]:
        shown.append(f"{counted(len(more), 'other difference')} (bench compare --json has them)")
    return Group(*parts, *_warnings(shown))


def header(run_meta: Record) -> Text:
    """Return the two lines that say which run this is."""
    sweep = run_meta["sweep"]
    hosts = run_meta["chain"].get("hops")
    lines = [
        f"Run {run_meta['run_id']}, {run_meta['status']}, started {run_meta['started_at']}",
        f"{counted(sweep['blocks'], 'block')} of {counted(len(sweep['cells']), 'cell')}, "
        f"seed {run_meta['seed']}"
        + (f", chain of {counted(len(hosts), 'hop')}" if isinstance(hosts, list) else ""),
    ]
    return Text("\n".join(map(plain, lines)))


def _family(comparison: Record, axis: Axis, metric: str) -> Group:
    pairs = of_axis(comparison["pairs"], axis, metric)
    name = f"{where(axis)}: {METRICS[metric]} of a over that of b"
    tests = counted(sum(pair["p_value"] is not None for pair in pairs), "test")
    note = f"p corrected for the {tests} of this table (Holm); {noise(comparison, axis, metric)}."
    return family(pairs, name, note)


def _other_cells(comparison: Record) -> Group:
    run, other = comparison["run"], comparison["other"]
    right = ("hops", "bytes", "conns", "run", "other", "run / other [95 %]", "p", "n")
    parts: list[RenderableType] = []
    for metric in dict.fromkeys(cell["metric"] for cell in other["cells"]):
        table = columns(left=("mode",), right=right, last="run is")
        for cell in other["cells"]:
            if cell["metric"] == metric:
                table.add_row(
                    Text(_titles(cell)),
                    str(cell["hops"]),
                    f"{cell['size_bytes']:,}",
                    str(cell["concurrency"]),
                    figure(cell["run_us"]),
                    figure(cell["other_us"]),
                    ratio(cell["ratio"], cell["ci95"]),
                    probability(cell["p_value"]),
                    either(cell["n"]),
                    cell["verdict"],
                )
        name = f"Median {METRICS[metric]} of {run} and of {other['run']}, µs"
        note = "p corrected for all cells of this table (Holm); the runs are not paired."
        parts += [Text(name, style="bold"), Text(note), table]
    return Group(*parts)


def _titles(record: Record) -> str:
    """Return the mode of both runs, or of each: `XDP / nft`."""
    labels = dict.fromkeys((record["label"], record["other_label"]))
    return " / ".join(map(title, labels))


def _costs(comparison: Record) -> Group:
    """Return what a hop costs in both runs."""
    lines = comparison["other"]["per_hop"]
    right = ("bytes", "conns", "run", "other")
    table = columns(left=("mode", "of"), right=right, last="intervals")
    for line in lines:
        table.add_row(
            Text(_titles(line)),
            METRICS[line["metric"]],
            f"{line['size_bytes']:,}",
            str(line["concurrency"]),
            *(
                f"{figure(line[side]['slope_us'])} {interval(line[side]['ci95'])}"
                for side in ("run", "other")
            ),
            {True: "overlap", False: "apart", None: NONE}[line["agree"]],
        )
    name = Text("Cost of a hop, µs [95 % interval]", style="bold")
    return Group(name, table) if lines else Group()


def _ratios(comparison: Record) -> Group:
    """Return how many ratios between modes agree, and those that do not."""
    pairs = comparison["other"]["pairs"]
    told = []
    for metric, words in METRICS.items():
        agree = [pair["agree"] for pair in pairs if pair["metric"] == metric]
        if agree:
            few = agree.count(None)
            unsure = f" ({few} with too few samples to say)" if few else ""
            told.append(f"{words} {agree.count(True)} of {len(agree)}{unsure}")
    if not told:
        return Group()
    lines = [f"Ratios between modes that agree (their intervals overlap): {', '.join(told)}."]
    apart = [pair for pair in pairs if pair["agree"] is False]
    for pair in apart[:_SHOWN]:
        at = (pair["size_bytes"], pair["concurrency"])
        sides = (ratio(pair[side]["ratio"], pair[side]["ci95"]) for side in ("run", "other"))
        lines.append(
            f"  {METRICS[pair['metric']]} of {title(pair['a'])} over {title(pair['b'])}, "
            f"{counted(pair['hops'], 'hop')}, {where(at)}: {' and '.join(sides)}"
        )
    if len(apart) > _SHOWN:
        lines.append(f"  and {len(apart) - _SHOWN} more (bench compare --json has them)")
    return Group(*map(Text, lines))


def _warnings(warnings: list[str]) -> list[Text]:
    return [Text(plain(f"Warning: {warning}"), style="yellow") for warning in warnings]
