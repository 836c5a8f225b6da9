# SPDX-License-Identifier: Apache-2.0
"""Words for a NIC that takes no XDP program: why, or who has it, and what helps."""

from __future__ import annotations

import errno

from . import ethtool, holder
from .errors import HopError

# What libxdp attaches, to have it call all the programs that it was given for a NIC.
_DISPATCHER = "xdp_dispatcher"
_ONE_PAGE = "a packet has to fit one page"
# What drivers complain of, and what helps; the first that is found in the reason counts.
_REMEDIES = (
    ("queue", "give {nic} more queues, or the host fewer CPUs (ethtool -L {nic})"),
    ("channel", "use at most half of the queues of {nic} (ethtool -L {nic})"),
    ("peer mtu", f"give the peer of {{nic}} a smaller MTU: {_ONE_PAGE}"),
    ("mtu", f"ip link set {{nic}} mtu 1500: {_ONE_PAGE}"),
    ("single-buffer", f"ip link set {{nic}} mtu 1500: {_ONE_PAGE}"),
    ("frags", f"ip link set {{nic}} mtu 1500: {_ONE_PAGE}"),
    ("frame size", f"ip link set {{nic}} mtu 1500: {_ONE_PAGE}"),
    ("gro_hw", "ethtool -K {nic} rx-gro-hw off"),
    ("lro", "ethtool -K {nic} lro off"),
    ("csum", "ethtool -K {nic} rx off, or change the offloads of the virtual machine's host"),
)


def taken(nic: str, attach: str, prog_id: int, name: str) -> HopError:
    """Return the error for a NIC that another program has; prog_id: 0 where that is not known."""
    cause = f"another XDP program is attached to {nic}"
    if not prog_id:
        return HopError(cause, "detach it; it is never replaced")
    cause = f"{cause}: {name or 'one without a name'} (id {prog_id})"
    how = f"ip link set {nic} {'xdpgeneric' if attach == 'generic' else 'xdp'} off"
    if name == _DISPATCHER:
        cause, how = f"{cause}, libxdp's dispatcher", f"xdp-loader unload {nic} --all"
    if held := holder.of_program(prog_id):
        return HopError(f"{cause}, held by {held}", "end that, or detach it; it is never replaced")
    return HopError(cause, f"detach it, as by {how}; it is never replaced")


def error(nic: str, attach: str, reason: str, number: int) -> HopError:
    """Return the error for a refusal. reason: the driver's own, or the words for `number`."""
    driver = ethtool.driver(nic)["driver"] or "unknown"
    cause = f"{nic}: its driver {driver} refuses XDP in {attach} mode: {reason}"
    return HopError(cause, remedy(nic, attach, reason, number))


def remedy(nic: str, attach: str, reason: str, number: int) -> str:
    """Return what to do about a refusal. number: an errno."""
    if attach == "offload":
        return "choose xdp_attach=native; hardly any NIC runs XDP itself"
    words = reason.lower()
    for word, text in _REMEDIES:
        if word in words:
            return text.format(nic=nic)
    if number == errno.EOPNOTSUPP:
        return "choose xdp_attach=generic, or a NIC whose driver supports XDP"
    return f"native XDP may need fewer queues on {nic}, GRO_HW and LRO off, or a smaller MTU"
