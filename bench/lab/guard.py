# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.lab.guard NAME`: takes an ephemeral lab down when its owner is gone."""

from __future__ import annotations

import signal
import sys

from bench.errors import BenchError
from bench.lab import lifecycle


def main() -> int:
    """Wait for end of file on stdin, then remove the lab if it is still there."""
    # A terminal's Ctrl-C and hang-up are for the owner; the guard has yet to do its work.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    try:
        lifecycle.down(sys.argv[1])
    except BenchError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
