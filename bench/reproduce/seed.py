# SPDX-License-Identifier: Apache-2.0
"""Table 1 of the 2022 report as it was printed, and what its own figures give away.

seed_table1.csv is Table 1 of the student report of 2022 on multi-hop forwarding with XDP, which
this project follows: siege's elapsed time for 100 requests, one after the other, on one machine's
loopback. The table's "file size (MB)" is in the column `label_printed`, its hop count, which
counts the server too, in `report_hops`; `size_bytes` and `forwarders` are what they stand for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import BenchError
from bench.hop.payloads import SIZES_BYTES

if TYPE_CHECKING:
    import pandas as pd

FILE = Path(__file__).with_name("seed_table1.csv")
REQUESTS = 100
FORWARDERS = (1, 2, 3, 4)
MODES = ("socat", "xdp")

SMALL_BYTES = 20_000
"""Files up to this size take no time worth mentioning beside a second."""
NEAR_S = 0.1
_PERIODS_S = np.arange(1.0, 1.0605, 0.001)

_HEADER = (
    "file_index",
    "label_printed",
    "size_bytes",
    "report_hops",
    "forwarders",
    "mode",
    "elapsed_s_100_requests",
)


def load(file: Path = FILE) -> pd.DataFrame:
    """Return the table: size_bytes, forwarders, mode (`socat` or `xdp`), elapsed_s.

    Raises BenchError unless every size, number of forwarders and mode is there, once and sound.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(file)
    except (OSError, ValueError) as error:
        raise BenchError(f"cannot read {file}: {error}", remedy=_REMEDY) from error
    if tuple(frame.columns) != _HEADER:
        raise _damaged(file, "its columns are others")
    index, size_bytes = frame["file_index"], frame["size_bytes"]
    elapsed_s = pd.to_numeric(frame["elapsed_s_100_requests"], errors="coerce")
    wanted = {(size, hops, mode) for size in SIZES_BYTES for hops in FORWARDERS for mode in MODES}
    found = list(zip(size_bytes, frame["forwarders"], frame["mode"], strict=True))
    if len(found) != len(wanted) or set(found) != wanted:
        raise _damaged(file, "it does not have each size, number of forwarders and mode once")
    if not (size_bytes == 78 * 2**index).all():
        raise _damaged(file, "a file's size is not that of its number")
    if not (frame["report_hops"] == frame["forwarders"] + 1).all():
        raise _damaged(file, "the report's hops are not forwarders and the server")
    if not (elapsed_s > 0).all() or not np.isfinite(elapsed_s).all():
        raise _damaged(file, "a time is no time")
    return pd.DataFrame(
        {
            "size_bytes": size_bytes.astype("int64"),
            "forwarders": frame["forwarders"].astype("int64"),
            "mode": frame["mode"].astype(str),
            "elapsed_s": elapsed_s.astype("float64"),
        }
    )


def labels(file: Path = FILE) -> dict[int, int]:
    """Return what the report printed as the size of each file, by its bytes."""
    import pandas as pd

    frame = pd.read_csv(file)
    return {
        int(a): int(b) for a, b in zip(frame["size_bytes"], frame["label_printed"], strict=True)
    }


@dataclass(frozen=True)
class Steps:
    """What the XDP figures of Table 1 are made of.

    n: figures. lowest_s, median_s, highest_s: of them all. small: figures of files up to
    SMALL_BYTES; period_s: what most of those are a whole multiple of; near: how many are, to
    NEAR_S; by_chance: how many would be if any remainder was as likely.
    """

    n: int
    lowest_s: float
    median_s: float
    highest_s: float
    small: int
    period_s: float
    near: int

    @property
    def by_chance(self) -> float:
        """How many of the small files' figures would be near a multiple anyway."""
        return self.small * min(1.0, 2 * NEAR_S / self.period_s)

    @property
    def median_waits(self) -> int:
        """How many waits of one period the median figure is."""
        return round(self.median_s / self.period_s)


def steps(frame: pd.DataFrame) -> Steps:
    """Return what the XDP figures are made of: multiples of the period that leaves least over."""
    xdp = frame[frame["mode"] == "xdp"]
    all_s = xdp["elapsed_s"].to_numpy()
    small_s = xdp[xdp["size_bytes"] <= SMALL_BYTES]["elapsed_s"].to_numpy()
    left = [float(np.abs(_remainders(small_s, period)).sum()) for period in _PERIODS_S]
    period_s = float(_PERIODS_S[int(np.argmin(left))])
    return Steps(
        n=len(all_s),
        lowest_s=float(all_s.min()),
        median_s=float(np.median(all_s)),
        highest_s=float(all_s.max()),
        small=len(small_s),
        period_s=period_s,
        near=int((np.abs(_remainders(small_s, period_s)) <= NEAR_S).sum()),
    )


def _remainders(
    values_s: np.ndarray[tuple[int], np.dtype[np.float64]], period_s: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return how far values are from the nearest whole multiple of a period."""
    return values_s - period_s * np.round(values_s / period_s)


_REMEDY = "the file is part of hopbench; install it again"


def _damaged(file: Path, reason: str) -> BenchError:
    return BenchError(f"{file} is damaged: {reason}", remedy=_REMEDY)
