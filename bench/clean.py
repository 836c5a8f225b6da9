# SPDX-License-Identifier: Apache-2.0
"""Remove what a crashed run could have left: on the hosts of a chain, and on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable

from bench import current, playbook
from bench.chain import Chain, Host
from bench.errors import BenchError, HostsError
from bench.fleet import Fleet
from bench.paths import hop_package

_LIMIT_S = 30.0
# Agents end first: what a live one has set is not left over.
_PROGRAMS = ("clean.py", "offload_records.py")


def clean_hosts(chain: Chain, progress: Callable[[str], None]) -> int:
    """End leftover agents on every host of the chain, undo what they left; return how much it was.

    Raises HostsError with each host that could not be cleaned, after the others were: one that is
    away keeps none of them from it.
    """
    programs = [(hop_package() / name).read_text() for name in _PROGRAMS]
    with Fleet([]) as fleet:

        def ask(host: Host) -> list[str]:
            removed: list[str] = []
            for program in programs:
                output = fleet.run_on(
                    host, "/usr/bin/python3 -B -", program, _LIMIT_S, as_root=True
                )
                try:
                    removed += [str(each) for each in json.loads(output)]
                except ValueError:
                    raise BenchError("its answer is not JSON", host=host.name) from None
            return removed

        away = {error.host: error for error in fleet.try_connect(chain.hosts)}
        removed, refused = fleet.try_each(
            ask, [host for host in chain.hosts if host.name not in away]
        )
    for host, things in removed.items():
        for thing in things:
            progress(f"{host}: removed {thing}")
    errors = away | {error.host: error for error in refused}
    if errors:
        raise HostsError.of(errors[host.name] for host in chain.hosts if host.name in errors)
    return sum(map(len, removed.values()))


def clean_here(progress: Callable[[str], None]) -> int:
    """Remove ephemeral labs and folders whose run is gone; forget an inventory that is gone."""
    removed = 0
    if sys.platform == "linux" and os.geteuid() == 0:
        from bench.lab import lifecycle

        removed += lifecycle.remove_orphans(progress)
    for folder in playbook.remove_leftovers():
        progress(f"removed {folder}")
        removed += 1
    try:
        current.recall()
    except BenchError:
        current.forget()
        progress("forgot the inventory deployed last, which is gone")
        removed += 1
    return removed


def current_chain() -> Chain | None:
    """Return the chain deployed last, or None when there is none that can be read."""
    from bench.inventory import load

    with contextlib.suppress(BenchError):
        if current.recall() is not None:
            return load(None)
    return None
