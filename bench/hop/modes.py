# SPDX-License-Identifier: Apache-2.0
"""The registry of forwarding modes: a new mode is one module beside this one, and one row here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mode:
    """How a hop forwards.

    title: the mode's name in a sentence. forwarder: module of this package and class, or empty
    for a mode in which no hop takes part. attach: whether it knows native, generic and offload.
    """

    title: str
    forwarder: str = ""
    attach: bool = False

    @property
    def hops(self) -> bool:
        """Whether any hop takes part."""
        return bool(self.forwarder)


MODES: dict[str, Mode] = {
    "direct": Mode("direct"),
    "socat": Mode("socat", "socat:SocatForwarder"),
    "nft": Mode("nft", "nft:NftForwarder"),
    "xdp": Mode("XDP", "xdp:XdpForwarder", attach=True),
}
