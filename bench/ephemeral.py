# SPDX-License-Identifier: Apache-2.0
"""A deployed chain on this machine for the length of one run, and no trace of it afterwards."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from bench import paths
from bench.chain import Chain
from bench.deploy import deploy, undeploy
from bench.errors import BenchError
from bench.inventory import load
from bench.lab.lifecycle import EphemeralLab
from bench.progress import RunProgress

# Where deploy puts everything on a host, which here is this machine.
_DEPLOYED = Path("/opt/hopbench")


@contextlib.contextmanager
def ephemeral_chain(hops: int, progress: RunProgress) -> Iterator[Chain]:
    """Yield a chain of `hops` namespaces, deployed; remove both at the end.

    What an earlier deploy put on this machine stays: another lab may be using it.
    """
    progress.phase(f"no inventory: making a lab of {hops} hops on this machine")
    deployed_before = _DEPLOYED.exists()
    artifacts = paths.state_dir() / "artifacts"
    with EphemeralLab(hops) as lab:
        chain = load(str(lab.inventory))

        def remove() -> None:
            if not deployed_before and _DEPLOYED.exists():
                undeploy(chain, artifacts=artifacts, progress=progress.detail)

        try:
            begin = time.monotonic()
            progress.phase("deploying")
            deploy(chain, artifacts=artifacts, progress=progress.detail)
            progress.phase(f"deployed in {time.monotonic() - begin:.0f} s")
            yield chain
        except BaseException:
            # The first failure is the one to hear of.
            with contextlib.suppress(BenchError):
                remove()
            raise
        remove()
