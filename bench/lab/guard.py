# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.lab.guard NAME OWNER [undeploy]`: what a lab's owner cannot do any more itself.

It takes the ephemeral lab down when its owner is gone; before that, with `undeploy`, it removes
what the owner had deployed to it.
"""

from __future__ import annotations

import contextlib
import signal
import sys

from bench.errors import BenchError
from bench.lab import files, lifecycle
from bench.owner import Owner


def main(name: str, owner: Owner | None, undeploy: bool) -> int:
    """Wait for end of file on stdin, then remove the lab if it is still there and the owner's."""
    # A terminal's Ctrl-C and hang-up are for the owner; the guard has yet to do its work.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    try:
        state = files.read_state(name)
        if owner is None or state is None or state[1] != owner:
            return 0
        if undeploy:
            from bench.ephemeral import remove_deployed

            with contextlib.suppress(BenchError):
                remove_deployed(state[0])
        lifecycle.down(name, only_of=owner)
    except BenchError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Owner.parse(sys.argv[2]), sys.argv[3:] == ["undeploy"]))
