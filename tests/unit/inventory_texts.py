# SPDX-License-Identifier: Apache-2.0
"""A small inventory in both formats, how to change it, and how loading it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.chain import Chain
from bench.errors import BenchError
from bench.inventory import load

GOOD = """\
[client]
alpha data_ip=198.18.0.1

[hops]
bravo data_ip=198.18.0.2

[server]
echo data_ip=198.18.0.3

[all:vars]
data_nic=eth0
"""

GOOD_YAML = """\
all:
  vars: {data_nic: eth0}
  children:
    client: {hosts: {alpha: {data_ip: 198.18.0.1}}}
    hops: {hosts: {bravo: {data_ip: 198.18.0.2}}}
    server: {hosts: {echo: {data_ip: 198.18.0.3}}}
"""


def changed(text: str, *edits: tuple[str, str]) -> str:
    """Return the text with parts of it replaced, each of which must be there."""
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def write(folder: Path, text: str | bytes, name: str = "chain.ini") -> Path:
    """Write an inventory and return its path."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def fails(path: Path | str) -> str:
    """Return the one line that loading ends with."""
    with pytest.raises(BenchError) as caught:
        load(str(path))
    line = caught.value.one_line()
    assert line.isprintable()
    assert len(line) < 500 + 2 * len(str(path))
    assert caught.value.exit_code == 1
    return line


def names(chain: Chain) -> list[str]:
    """Return the names of all hosts, in order."""
    return [host.name for host in chain.hosts]
