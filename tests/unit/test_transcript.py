# SPDX-License-Identifier: Apache-2.0
"""A transcript gives back what it was given, at any time, and keeps little of it in memory."""

from __future__ import annotations

import json

from bench.transcript import Transcript


def test_it_gives_back_what_it_was_given() -> None:
    transcript, said = Transcript(), ""
    assert transcript.text == ""
    for number in range(300):
        line = f"{number} > {json.dumps({'op': 'counters'})} ü € \udcff\n"
        transcript.add(line)
        said += line.replace("\udcff", "?")
        assert transcript.text == said


def test_a_long_run_takes_little() -> None:
    transcript = Transcript()
    for number in range(100_000):
        counts = {f"counter_{each}": number * each for each in range(12)}
        transcript.add(f"{1.7e9 + number / 10:.3f} < {json.dumps(counts)}\n")
    assert len(transcript.text) > 10 * len(transcript._packed) / 2
