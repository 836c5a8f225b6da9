# SPDX-License-Identifier: Apache-2.0
"""A deployed chain on this machine for the length of one run, and no trace of it afterwards."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import paths
from bench.chain import Chain
from bench.deploy import deploy, undeploy
from bench.errors import BenchError
from bench.inventory import load
from bench.lab.lifecycle import EphemeralLab
from bench.lab.model import Lab
from bench.progress import RunProgress

# Where deploy puts everything on a host, which here is this machine.
_DEPLOYED = Path("/opt/hopbench")


@contextlib.contextmanager
def ephemeral_chain(hops: int, progress: RunProgress) -> Iterator[Chain]:
    """Yield a chain of `hops` namespaces, deployed; remove both at the end.

    What an earlier deploy put on this machine stays: another lab may be using it.
    """
    progress.phase(f"no inventory: making a lab of {hops} hops on this machine")
    undeploys = not _DEPLOYED.exists()
    artifacts = paths.state_dir() / "artifacts"
    with EphemeralLab(hops, undeploy=undeploys) as lab:
        chain = load(str(lab.inventory))
        try:
            begin = time.monotonic()
            progress.phase("deploying")
            deploy(chain, artifacts=artifacts, progress=progress.detail)
            progress.phase(f"deployed in {time.monotonic() - begin:.0f} s")
            yield chain
        except BaseException:
            # The first failure is the one to hear of.
            with contextlib.suppress(BenchError):
                if undeploys:
                    remove_deployed(lab, progress.detail)
            raise
        if undeploys:
            remove_deployed(lab, progress.detail)


def remove_deployed(lab: Lab, progress: Callable[[str], None] = lambda _: None) -> None:
    """Remove what was deployed to a lab's hosts, if anything was. Raises BenchError."""
    if _DEPLOYED.exists():
        chain = load(str(lab.inventory))
        undeploy(chain, artifacts=paths.state_dir() / "artifacts", progress=progress)
