# SPDX-License-Identifier: Apache-2.0
"""The report's Table 1: that it is the report's, and what its figures are multiples of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.reproduce import seed


def test_the_table_of_the_report() -> None:
    frame = seed.load()
    assert len(frame) == 112 == 14 * 4 * 2
    assert list(frame.columns) == ["size_bytes", "forwarders", "mode", "elapsed_s"]
    known = frame.set_index(["size_bytes", "forwarders", "mode"])["elapsed_s"]
    spots = {
        (312, 1, "socat"): 0.15,
        (312, 1, "xdp"): 43.08,
        (624, 3, "xdp"): 29.79,
        (1248, 3, "socat"): 1.19,
        (2555904, 1, "xdp"): 51.9,
        (2555904, 4, "socat"): 2.35,
        (2555904, 4, "xdp"): 37.17,
    }
    assert {key: known[key] for key in spots} == spots
    assert known.sum() == pytest.approx(33.18 + 2273.71)
    assert seed.labels()[9984] == 95 and seed.labels()[2555904] == 24320


def test_steps_are_found_where_they_are() -> None:
    frame = seed.load()
    xdp = frame["mode"] == "xdp"
    small = frame["size_bytes"] <= seed.SMALL_BYTES
    made = frame.assign(elapsed_s=frame["elapsed_s"].where(~xdp, frame.index % 7 * 1.04 + 20.8))
    steps = seed.steps(made)
    assert steps.period_s == pytest.approx(1.04) and steps.near == steps.small == 28
    assert (xdp & small).sum() == 28
    flat = frame.assign(elapsed_s=20 + (frame.index * 0.6180339) % 10)
    assert seed.steps(flat).near < 14


BROKEN: dict[str, Callable[[str], str]] = {
    "a row less": lambda text: text.rsplit("\n", 2)[0] + "\n",
    "a row twice": lambda text: text + text.splitlines()[-1] + "\n",
    "another size": lambda text: text.replace("2,3,312,2,1,socat", "2,3,313,2,1,socat"),
    "another number": lambda text: text.replace("2,3,312,2,1,socat", "3,3,312,2,1,socat"),
    "other hops": lambda text: text.replace("2,3,312,2,1,socat", "2,3,312,3,1,socat"),
    "no time": lambda text: text.replace("socat,0.15", "socat,0", 1),
    "a word for a time": lambda text: text.replace("socat,0.15", "socat,soon", 1),
    "other columns": lambda text: text.replace("mode", "kind", 1),
    "nothing": lambda text: "",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_damaged_table_is_refused(tmp_path: Path, how: str) -> None:
    file = tmp_path / "table.csv"
    text = seed.FILE.read_text(encoding="utf-8")
    changed = BROKEN[how](text)
    assert changed != text
    file.write_text(changed, encoding="utf-8")
    with pytest.raises(BenchError):
        seed.load(file)
