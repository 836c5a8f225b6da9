# SPDX-License-Identifier: Apache-2.0
"""`python3 -m hop ROLE`: what the controller starts through SSH."""

from __future__ import annotations

import importlib
import os
import sys

# Imported on demand: an agent that forwards should not carry what others need.
ROLES = {
    "forward": "forward",
    "serve": "serve",
    "load": "load",
    "loopback": "loopback",
    "wire": "wire",
    "facts": "facts",
    "payloads": "payloads",
    "datapath": "datapath",
}


def main() -> int:
    """Run the role named on the command line; return its exit status."""
    if len(sys.argv) < 2 or sys.argv[1] not in ROLES:
        print(f"usage: python3 -m hop {{{'|'.join(ROLES)}}}", file=sys.stderr)
        return 2
    # What is made here is root's alone, whatever the login has set.
    os.umask(0o077)
    module = importlib.import_module(f".{ROLES[sys.argv[1]]}", __package__)
    status: int = module.main(sys.argv[2:])
    return status


if __name__ == "__main__":
    sys.exit(main())
