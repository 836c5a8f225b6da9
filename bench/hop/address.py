# SPDX-License-Identifier: Apache-2.0
"""IPv4 and IPv6 addresses as text: their family, which can be a host's, how a port follows them."""

from __future__ import annotations

import ipaddress
import sys

FAMILIES = (4, 6)
# Global unicast (RFC 4291) and unique local addresses (RFC 4193). A link-local one says nothing
# without a zone, and the rest of the IPv6 space belongs to no host.
_IPV6_HOSTS = (ipaddress.IPv6Network("2000::/3"), ipaddress.IPv6Network("fc00::/7"))


def family(address: str) -> int:
    """Return 4 or 6. Raises ValueError for a text that is no address."""
    return ipaddress.ip_address(address).version


def is_host(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Say whether a chain's host may have an address; one with a zone (`%eth0`) none may have."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.scope_id is None and any(address in each for each in _IPV6_HOSTS)
    return not (address.is_multicast or address.is_unspecified or int(address) == 0xFFFFFFFF)


def bracketed(address: str) -> str:
    """Return an address as it stands before a colon and a port (RFC 3986, 3.2.2)."""
    return f"[{address}]" if ":" in address else address


def endpoint(address: str, port: int) -> str:
    """Return `198.18.0.2:7000` or `[2001:2::2]:7000`."""
    return f"{bracketed(address)}:{port}"


def proc_address(address: str, port: int) -> str:
    """Return address and port as /proc/net/tcp and tcp6 have them: words of the host's order."""
    octets = ipaddress.ip_address(address).packed
    words = (int.from_bytes(octets[i : i + 4], sys.byteorder) for i in range(0, len(octets), 4))
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
