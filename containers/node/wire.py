# SPDX-License-Identifier: Apache-2.0
"""Join the ports of a chain's containers by XDP: `wire.py FUNCTION IFINDEX=MAC…`.

Runs in the network namespace that holds the other ends of the containers' NICs: the machine's.
"""

from __future__ import annotations

import socket
import subprocess
import sys

sys.path.insert(0, "/opt/hopbench")


def main(function: str, pairs: list[str]) -> int:
    """Attach `function` of bpf/wire.c to every port; on failure say why and return 1.

    pairs: interface index of a port, `=`, MAC address of the host behind it.
    """
    from hop import wire
    from hop.errors import HopError

    try:
        ports = {}
        for pair in pairs:
            index, mac = pair.split("=")
            port = socket.if_indextoname(int(index))
            # GRO would merge segments and leave their checksum to a NIC that is not there.
            argv = ["/usr/sbin/ethtool", "-K", port, "gro", "off", "tx", "off"]
            subprocess.run(argv, stdout=subprocess.DEVNULL, check=True, timeout=30)
            ports[port] = mac
        wire.attach(ports, function)
    except (HopError, OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"hopbench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
