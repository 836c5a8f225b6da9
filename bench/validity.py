# SPDX-License-Identifier: Apache-2.0
"""How far to believe a run: its noise floor, its samples, and what it warns of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.contrast import TOO_FEW, UNCLEAR
from bench.measured import Figures
from bench.pairs import noise_floors
from bench.runs import RunReader
from bench.siege import CLOCK_TICK_S

if TYPE_CHECKING:
    import pandas as pd

Record = Mapping[str, Any]

SHORT_S = 0.5
"""A sample below this is too short for siege's clock: one tick is more than 2 % of it."""

_SHOWN = 3
_TICK = f"{CLOCK_TICK_S * 1000:.0f} ms tick of siege's clock"


def validity(run: RunReader, figures: Figures, pairs: Sequence[Record]) -> dict[str, Any]:
    """Return what `bench compare --json` has under this name; pairs are those of the run."""
    floors = noise_floors(pairs)
    samples = run.samples[~run.samples["warmup"]]
    invalid = samples[~samples["valid"]]
    reasons = Counter(str(reason) for reason in invalid["invalid_reason"])
    of_time = (each["noise_floor"] for each in floors if each["metric"] == "response_us")
    return {
        "noise_floor": max(of_time, default=None),
        "noise_floors": floors,
        "samples": {
            "measured": len(samples),
            "valid": len(samples) - len(invalid),
            "invalid": len(invalid),
            "warmup": len(run.samples) - len(samples),
        },
        "invalid_reasons": dict(reasons.most_common()),
        "timer": figures.timed,
        "warnings": [
            *_unfinished(run, len(samples)),
            *_invalid(reasons, len(samples)),
            *(_without_times(figures) if figures.timed else _by_siege(samples)),
            *_empty(figures),
            *_noise(run, figures, floors),
            *_surroundings(run),
        ],
    }


def _unfinished(run: RunReader, measured: int) -> Iterator[str]:
    planned = len(run.cells) * run.meta["sweep"]["blocks"]
    if run.meta["status"] != "complete":
        yield f"the run is {run.meta['status']}: {measured} of {planned} samples are there"


def _invalid(reasons: Counter[str], measured: int) -> Iterator[str]:
    if reasons:
        told = _few([f"{count} x {reason}" for reason, count in reasons.most_common()], "reasons")
        yield f"{reasons.total()} of {measured} samples are invalid and left out: {told}"


def _without_times(figures: Figures) -> Iterator[str]:
    if figures.unusable:
        told = _by_mode(figures.unusable)
        yield f"valid samples without connection times are left out: {told}"


def _by_siege(samples: pd.DataFrame) -> Iterator[str]:
    valid = samples[samples["valid"]]
    if not len(valid):
        return
    yield (
        "the run has no connection times: response time is siege's elapsed time over its "
        f"transactions, by a clock of {CLOCK_TICK_S * 1000:.0f} ms"
    )
    untimed = valid[valid["elapsed_s"] == 0]
    if len(untimed):
        yield (
            f"{len(untimed)} samples ended within one {_TICK}, "
            f"cannot be timed and are left out: {_by_mode(Counter(untimed['mode']))}"
        )
    short = valid[(valid["elapsed_s"] > 0) & (valid["elapsed_s"] < SHORT_S)]
    if len(short):
        yield (
            f"{len(short)} samples lasted less than {SHORT_S} s, of which one {_TICK} is more than "
            f"{CLOCK_TICK_S / SHORT_S:.0%}: {_by_mode(Counter(short['mode']))}; raise --requests"
        )


def _empty(figures: Figures) -> Iterator[str]:
    empty = sum(not item.samples for item in figures.cells)
    if empty:
        yield f"{empty} of {len(figures.cells)} cells have no sample to go by"


def _noise(run: RunReader, figures: Figures, floors: Iterable[Record]) -> Iterator[str]:
    known = list(floors)
    for each in known:
        if each["verdict"] not in (UNCLEAR, TOO_FEW):
            low, high = each["ci95"]
            yield (
                f"{each['label']} differs from itself at {_counted(each['hops'], 'hop')}, "
                f"{each['size_bytes']:,} bytes and {each['concurrency']} at a time: "
                f"{each['metric']} is {each['ratio']:.3f} [{low:.3f}, {high:.3f}] times its own; "
                "the noise is larger than the intervals say"
            )
    if run.meta["aa"] and not known and any(item.samples for item in figures.cells):
        yield "the noise floor is not known: no cell has samples under both of its labels"


def _surroundings(run: RunReader) -> Iterator[str]:
    changes = [str(change) for change in run.meta["changes"]]
    if changes:
        yield f"hosts changed during the run: {_few(changes, 'changes')}"
    levels = Counter(finding["level"] for finding in findings(run.meta))
    if levels:
        told = " and ".join(_counted(count, level) for level, count in sorted(levels.items()))
        yield f"the checks before the run found {told}: see bench show"


def findings(run_meta: Record) -> list[Record]:
    """Return what the checks before a run objected to: host, level, text and remedy each."""
    return [
        {key: str(item.get(key, "")) for key in ("host", "level", "text", "remedy")}
        for item in run_meta["findings"]
        if isinstance(item, dict) and item.get("level") in ("warning", "problem")
    ]


def _few(items: Sequence[str], noun: str) -> str:
    more = [f"and {len(items) - _SHOWN} other {noun}"] if len(items) > _SHOWN else []
    return "; ".join([*items[:_SHOWN], *more])


def _by_mode(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{mode} {count}" for mode, count in counts.items())


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
