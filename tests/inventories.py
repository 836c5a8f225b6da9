# SPDX-License-Identifier: Apache-2.0
"""Inventories that several tests write."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def nobody_listens(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """The inventory of a chain in which every host refuses SSH.

    names: of the client, one hop or more, and the server.
    """
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        client, *hops, server = (
            f"{name} ansible_host=127.0.0.1 ansible_port={nobody.getsockname()[1]} "
            f"data_ip=198.18.0.{number} data_nic=eth0\n"
            for number, name in enumerate(names, start=1)
        )
        inventory = folder / "chain.ini"
        inventory.write_text(f"[client]\n{client}[hops]\n{''.join(hops)}[server]\n{server}")
        yield inventory
