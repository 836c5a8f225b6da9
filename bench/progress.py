# SPDX-License-Identifier: Apache-2.0
"""What a user sees on stderr during a run: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from bench.plain import plain


class RunProgress:
    """Phases before the first sample, then samples with the time left."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._live: Progress | None = None
        self._task = TaskID(0)
        self._total = 0

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def phase(self, text: str) -> None:
        """Say what happens before, between or after samples."""
        self._print(text)

    def detail(self, text: str) -> None:
        """Say a detail of a phase; it is left out where nobody watches."""
        if self._console.is_terminal:
            self._print(f"  {text}")

    def start(self, total: int) -> None:
        """Begin counting samples."""
        self._total = total
        if not self._console.is_terminal:
            return
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            # In the lab this process shares its CPUs with what is measured: draw on request only.
            auto_refresh=False,
            transient=True,
        )
        self._live.start()
        self._task = self._live.add_task("measuring", total=total, left="")

    def extend(self, more: int) -> None:
        """Count so many samples more."""
        self._total += more
        if self._live is not None:
            self._live.update(self._task, total=self._total)

    def sample(self, done: int, text: str, left_s: float | None) -> None:
        """Report a finished sample. left_s: estimated time to the end, or None."""
        left = _duration(left_s)
        if self._live is not None:
            self._live.update(self._task, completed=done, description=text, left=left, refresh=True)
        else:
            self._print(f"{done}/{self._total} {text}" + (f"; {left}" if left else ""))

    def _print(self, words: str) -> None:
        text = plain(words)
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    return f"{minutes} min {rest:02d} s left" if minutes else f"{rest} s left"
