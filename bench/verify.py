# SPDX-License-Identifier: Apache-2.0
"""After a deploy: does every host's agent start, and does every mode prepare?"""

from __future__ import annotations

from bench.cells import MODES
from bench.chain import Chain
from bench.session import Session


def verify(chain: Chain) -> None:
    """Start every agent of the chain once, with all modes prepared, and end them again.

    That takes SSH as the controller itself uses it, the agents, nginx, siege, the NICs, nftables,
    socat, and BCC with kernel headers for what was not compiled before: runs then start sooner.
    Raises BenchError with every host where something fails.
    """
    with Session(chain, len(chain.hops), list(MODES)):
        pass
