# SPDX-License-Identifier: Apache-2.0
"""Words for a NIC that takes no XDP program: which, by what driver, why, and what helps."""

from __future__ import annotations

import errno

from . import ethtool
from .errors import HopError

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
