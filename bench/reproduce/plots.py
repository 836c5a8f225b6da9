# SPDX-License-Identifier: Apache-2.0
"""Plots of a reproduction: when connections were open, and the report's own for each part."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from bench.cells import title
from bench.report import legacy_figures, style
from bench.report.document import Figure, Section, Words
from bench.report.figure import figure
from bench.report.marks import line, scale
from bench.report.panels import arrange, sheet
from bench.reproduce.cells import CHAIN, LOOPBACK, REPORT, REQUESTS
from bench.reproduce.evidence import OTHERS
from bench.reproduce.examined import Examined
from bench.reproduce.plan import LEGACY, TODAY
from bench.reproduce.table1 import is_short
from bench.reproduce.tally import Tally
from bench.reproduce.words import name, seconds, share
from bench.sentences import counted

_LABELS = {(REPORT, "xdp"): LEGACY, (LOOPBACK, "xdp"): "xdp/generic"}
"""Modes that are drawn as others: the report's XDP is its own filter, and on loopback there is
only the generic attach."""

_QUANTITY = "Seconds that 100 requests took, one after the other."

_STEPS_S = (1.0, 3.0)
_POINTS = 300

_PARTS = (
    (
        "figures-2022",
        "The report's figures, from its Table 1",
        [(REPORT, "socat"), (REPORT, "xdp")],
        "Drawn from the report's printed Table 1, as its Figures 9 to 14.",
    ),
    (
        "figures-again",
        "The same, made again on loopback",
        [(LOOPBACK, "direct"), (LOOPBACK, "socat"), (LOOPBACK, LEGACY)],
        "One loopback device: a chain of socat, and a filter with the report's faults.",
    ),
    (
        "figures-corrected",
        "The corrected filter on loopback",
        [(LOOPBACK, "direct"), (LOOPBACK, "socat"), (LOOPBACK, "xdp")],
        "The same device with this project's forwarder: XDP in generic mode, as loopback has no "
        "other.",
    ),
    (
        "figures-chain",
        "The real chain: one host a hop",
        [(CHAIN, "direct"), (CHAIN, "socat"), (CHAIN, "nft"), (CHAIN, "xdp")],
        "What the report left for later: each forwarder is a host of its own, XDP is attached in "
        "the driver, and nftables is there.",
    ),
)


def sections(examined: Examined) -> list[Section]:
    """Return the report's figures for each part, or a sentence where it was not measured."""
    found = []
    for identity, heading, wanted, words in _PARTS:
        tidy, forecasts = _tidy(examined.cells, wanted)
        if not (tidy["forwarders"] > 0).any():
            found.append(
                Section(identity, heading, [Words(["There are no figures of this part."])])
            )
            continue
        said = [f"{words} {_ranges(tidy)}", *([_forecast(forecasts)] if forecasts else [])]
        found.append(Section(identity, heading, [Words(said), *_figures(identity, tidy)]))
    return found


def _ranges(tidy: pd.DataFrame) -> str:
    """Return what each mode took, and how much of that the file's size and forwarders are."""
    said = []
    for label, rows in tidy[tidy["forwarders"] > 0].groupby("label", sort=False):
        low, high = rows["elapsed_s"].min(), rows["elapsed_s"].max()
        said.append(f"{title(str(label))} {seconds(low)} to {seconds(high)} s")
    sizes = tidy["size_bytes"]
    files = f"{sizes.min():,} to {sizes.max():,} bytes"
    return f"Over files of {files} and all numbers of forwarders: {', '.join(said)}."


def _figures(prefix: str, tidy: pd.DataFrame) -> list[Figure]:
    """Return the report's figures 8 to 14, as far as there are points."""
    modes = ("socat", "nft", "xdp", LEGACY)
    forwarded = tidy[tidy["forwarders"] > 0]
    found = [
        legacy_figures.direct(tidy, prefix, _QUANTITY),
        legacy_figures.against(tidy, prefix, _QUANTITY, modes=modes),
        *(
            legacy_figures.by_hops(tidy, label, prefix, _QUANTITY)
            for label in style.ranked(forwarded["label"])
        ),
    ]
    return [each for each in found if each is not None]


def _tidy(cells: pd.DataFrame, wanted: list[tuple[str, str]]) -> tuple[pd.DataFrame, int]:
    """Return cells as the figures take them, and how many are drawn by their pace."""
    keys = list(zip(cells["part"], cells["mode"], strict=True))
    here = cells[np.array([key in wanted for key in keys]) & cells["elapsed_s"].notna()]
    drawn = pd.DataFrame(
        {
            "label": [
                _LABELS.get(key, key[1]) for key in zip(here["part"], here["mode"], strict=True)
            ],
            "forwarders": here["forwarders"].to_numpy(),
            "size_bytes": here["size_bytes"].to_numpy(),
            "elapsed_s": here["per_100_s"].to_numpy(),
            "lo_s": here["lo_s"].to_numpy(),
            "hi_s": here["hi_s"].to_numpy(),
            "n": here["n"].to_numpy(),
        }
    )
    forecasts = sum(is_short(row) and row["made"] != REQUESTS for row in here.to_dict("records"))
    return drawn, forecasts


def _forecast(number: int) -> str:
    return (
        f"{counted(number, 'cell')} made fewer or more than {REQUESTS} requests: drawn by the time "
        f"{REQUESTS} would have taken at that pace, which is a forecast; the tables have what was "
        "measured."
    )


def connect_times(tallies: Mapping[str, Tally]) -> list[Figure]:
    """Return the plot of when connections were open on the loopback; nothing without any."""
    shown = [tallies[mode] for mode in (LEGACY, TODAY, *OTHERS) if mode in tallies]
    shown = [tally for tally in shown if tally.connections]
    if not shown:
        return []
    with style.rc():
        drawn = sheet(1, heights_in=(3.0,))
        ax = drawn.panels[0]
        rows = [_curve(tally) for tally in shown]
        frame = pd.concat(rows, ignore_index=True)
        known = [*frame["connect_us"].dropna(), *(1e6 * step for step in _STEPS_S)]
        scale([ax], "x", [*known, 4e6], log=True)
        _, right = ax.get_xlim()
        for step in _STEPS_S:
            ax.axvline(1e6 * step, color=style.MUTED, linewidth=1.0, linestyle=(0, (2, 2)))
        for tally, row in zip(shown, rows, strict=True):
            like = line(_LABELS.get((LOOPBACK, tally.mode), tally.mode), marker="none")
            times_us = [*row["connect_us"], right]
            parts = [*row["percent"], row["percent"].iloc[-1] if len(row) else 0.0]
            (curve,) = ax.plot(times_us, parts, drawstyle="steps-post")
            curve.update_from(like)
            curve.set_transform(ax.transData)
            curve.set_drawstyle("steps-post")
            drawn.legend.append((like, name(LOOPBACK, tally.mode)))
        ax.set_ylim(0, 103)
        drawn.x_label = "time until the connection was open (SYN sent to established)"
        ax.set_ylabel("connections open, %")
        _time_ticks(ax)
        plot = arrange(drawn)
    alt = "Share of connections open after a time, on loopback. " + ". ".join(
        f"{name(LOOPBACK, tally.mode)}: {_alt(tally)}" for tally in shown
    )
    n = ", ".join(f"{name(LOOPBACK, each.mode)} {each.connections:,}" for each in shown)
    caption = (
        "Connections that were open after a time, of all that were begun, in all samples but "
        f"warm-ups: n = {n}. Dashed: 1 s and 3 s, when Linux sends a SYN again (newer kernels also "
        "after 2 s). A curve that ends below 100 % has connections that never were open."
    )
    title = "How long connections took to open"
    return [figure("connect-times", title, plot, alt + ".", caption, frame)]


def _alt(tally: Tally) -> str:
    shares = tally.shares
    at = [f"{share(number, shares.total)} at about {step} s" for step, number in shares.at.items()]
    parts = [f"{share(shares.prompt, shares.total)} within 10 ms", *at]
    return ", ".join([*parts, f"{share(shares.never, shares.total)} never"])


def _curve(tally: Tally) -> pd.DataFrame:
    """Return points of the distribution: each time with the share of connections open by then."""
    ordered = np.sort(tally.connect_us)
    count = len(ordered)
    places = np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(int))
    return pd.DataFrame(
        {
            "mode": tally.mode,
            "connect_us": ordered[places],
            "percent": 100.0 * (places + 1) / tally.connections,
            "connections": tally.connections,
        }
    )


def _time_ticks(ax: object) -> None:
    from matplotlib.axes import Axes
    from matplotlib.ticker import FixedLocator, FuncFormatter

    assert isinstance(ax, Axes)
    names = {1e1: "10 µs", 1e2: "0.1 ms", 1e3: "1 ms", 1e4: "10 ms", 1e5: "0.1 s", 1e6: "1 s"}
    names |= {3e6: "3 s", 1e7: "10 s", 3e7: "30 s"}
    low, high = ax.get_xlim()
    places = [each for each in names if low <= each <= high]
    ax.xaxis.set_major_locator(FixedLocator(places))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: names.get(float(value), "")))
