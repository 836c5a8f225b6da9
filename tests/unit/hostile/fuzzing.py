# SPDX-License-Identifier: Apache-2.0
"""How hostile input is drawn, how often, and what may come of it at most."""

from __future__ import annotations

import contextlib
import copy
import io
import itertools
import math
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from bench import cli

# A test run always has the same inputs; with this, others each time, for so long a test.
SECONDS = float(os.environ.get("HOPBENCH_FUZZ_SECONDS", "0"))
TRIED: Counter[str] = Counter()
LIMIT_S = 15.0

EVIL_TEXTS = (
    "",
    " ",
    "; touch ran",
    "$(touch ran)",
    "`touch ran`",
    "| touch ran #",
    "&& touch ran",
    "' ; touch ran ; '",
    '" ; touch ran ; "',
    "x\ntouch ran\n",
    "\r\nHost: x",
    "--help",
    "-oProxyCommand=touch ran",
    "../../x",
    "/etc/passwd",
    "..",
    "a/b",
    "\0",
    "a\0b",
    "\x1b]0;owned\x07\x1b[2J",
    "\x9b31m",
    "\ud800",
    "\udcff",
    "\u202egnp.exe",
    "\u2066\u2069",
    "\ufeff",
    "\uffff",
    "e\u0301" * 40,
    "\U0001f4a9" * 20,
    "\u0663",
    "%n%s%x",
    "{0.__class__}",
    "{{ lookup('pipe', 'touch ran') }}",
    "{% for i in range(9) %}{% endfor %}",
    "!!python/object/apply:os.system [touch ran]",
    "__import__('os').system('touch ran')",
    "[red]x[/red]",
    "=cmd|'/C touch ran'!A0",
    "<script>touch()</script>",
    "NaN",
    "-1",
    "1e400",
    "9" * 400,
    "A" * 5000,
)
"""What a shell, a terminal, a file system, a template, a spreadsheet or a parser may fall for."""

EVIL_NUMBERS = (
    *(0, 1, -1, 255, 65535, 65536, 2**31, 2**53 + 1, 2**63, 2**64, 2**64 + 1, -(2**63), 10**30),
    *(10**400, 10**4299, 0.0, -0.0, 0.5, 5e-324, 1.7e308, -1.7e308, 1e19),
    *(math.nan, math.inf, -math.inf),
)


def nested(depth: int, *, inner: Any = 0) -> Any:
    """Return lists within lists."""
    for _ in range(depth):
        inner = [inner]
    return inner


texts = st.sampled_from(EVIL_TEXTS) | st.text(max_size=20)
scalars = st.one_of(st.none(), st.booleans(), st.sampled_from(EVIL_NUMBERS), st.integers(), texts)
values = st.one_of(
    scalars,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from([[], {}, [[]], {"a": {}}, nested(50), nested(70), nested(500)]),
)
"""Anything that JSON can say, and some of what it should not."""


def fuzz(check: Callable[..., None], *strategies: st.SearchStrategy[Any], examples: int) -> None:
    """Try a check with so many inputs, always the same, or with others for SECONDS."""
    name = os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].partition(" ")[0]
    until = time.monotonic() + SECONDS
    for number in itertools.count():
        if number and (examples == 1 or time.monotonic() >= until):
            break

        @seed(random.getrandbits(64) if SECONDS else 1)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            # What takes long, or all memory, is not to be tried again and again in other forms.
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(st.tuples(*strategies))
        def attempt(drawn: tuple[Any, ...]) -> None:
            TRIED[name] += 1
            with _in_time():
                check(*drawn)

        attempt()


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    """Fail for an input that takes more of the processor than any may."""

    def late(_number: int, _frame: object) -> None:
        raise AssertionError(f"an input took more than {LIMIT_S} s of processor time")

    before = signal.signal(signal.SIGVTALRM, late)
    # Again and again: what is raised in a callback of the interpreter's own gets lost.
    signal.setitimer(signal.ITIMER_VIRTUAL, LIMIT_S, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class Mutator:
    """Changes a document of JSON in a few places, in ways drawn beforehand.

    changes: strategy of what `apply` takes.
    """

    changes = st.lists(
        st.tuples(
            st.integers(0, 2**32), st.sampled_from(["set", "drop", "add", "double", "key"]), values
        ),
        min_size=1,
        max_size=3,
    )

    def __init__(self, document: Any) -> None:
        self._document = document

    def apply(self, changes: list[tuple[int, str, Any]]) -> Any:
        """Return the document with the changes made."""
        holder = {"": copy.deepcopy(self._document)}
        for place, kind, drawn in changes:
            value = copy.deepcopy(drawn)
            places = list(_places(holder))
            parent, key = places[place % len(places)]
            if kind == "drop" and parent is not holder:
                del parent[key]
            elif kind == "double" and isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            elif kind == "add" and isinstance(parent[key], dict):
                parent[key][str(value)[:40]] = value
            elif kind == "add" and isinstance(parent[key], list):
                parent[key].append(value)
            elif kind == "key" and isinstance(parent, dict) and parent is not holder:
                parent[str(value)[:40]] = parent.pop(key)
            else:
                parent[key] = value
        return holder[""]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of everything within a document."""
    stack = [value]
    while stack:
        each = stack.pop()
        keys = each if isinstance(each, dict) else range(len(each))
        for key in keys:
            yield each, key
            if isinstance(each[key], dict | list) and each[key]:
                stack.append(each[key])


class Spoken(io.StringIO):
    """What a command prints, which has to be text that a terminal can be sent."""

    def write(self, text: str) -> int:
        text.encode()
        return super().write(text)


def bench(*words: str | Path) -> tuple[int, str, str]:
    """Run the command in this process; return status, stdout and stderr.

    Whatever is no orderly end, as a traceback would be, comes out as the exception.
    """
    out, err = Spoken(), Spoken()
    before = sys.argv
    sys.argv = ["bench", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue(), err.getvalue()
    finally:
        sys.argv = before
    raise AssertionError("the command did not end")


def orderly(status: int, stdout: str, stderr: str) -> bool:
    """Require success, or one line; return whether it was success."""
    if status == 0:
        return True
    assert status in (1, 2)
    lines = [line for line in stderr.splitlines() if line.startswith("bench: ")]
    assert len(lines) == 1, stderr
    # What no part of the program has foreseen comes with the name of an exception.
    assert "Error: " not in lines[0].split("(")[0], lines[0]
    assert lines[0].isprintable()
    assert len(lines[0]) < 2000
    return False
