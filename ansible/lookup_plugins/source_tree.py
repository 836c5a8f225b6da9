# SPDX-License-Identifier: Apache-2.0
"""Pack source folders into one text that a single task can carry to a host."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: source_tree
short_description: pack source folders into one text
description:
  - Reads the source files of folders on the controller and returns them as one line of text,
    base64 of a zlib-compressed JSON object of folder name to (relative path to content).
  - The same files always give the same text.
options:
  _terms:
    description: one mapping of the folder's name on the host to its path on the controller
    required: true
  suffixes:
    description: file name suffixes that count as sources
    type: list
    elements: str
    default: [.py, .c, .h]
"""


def read_tree(root: Path, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Return relative path → text of every source file below `root`, sorted by path."""
    return {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(root.rglob("*"))
        if path.suffix in suffixes and path.is_file()
    }


def pack(trees: dict[str, dict[str, str]]) -> str:
    """Return the trees as one line of text; the inverse is `unpack` in install_tree.py."""
    plain = json.dumps(trees, sort_keys=True).encode()
    return base64.b64encode(zlib.compress(plain, 9)).decode()


class LookupModule(LookupBase):  # type: ignore[misc]
    """The lookup, as Ansible finds it by this file's name."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return one packed text a term."""
        self.set_options(var_options=variables, direct=kwargs)
        suffixes = tuple(self.get_option("suffixes"))
        packed = []
        for term in terms:
            for name, folder in term.items():
                if not Path(folder).is_dir():
                    raise AnsibleError(f"no folder of sources for {name} at {folder}")
            packed.append(
                pack({name: read_tree(Path(folder), suffixes) for name, folder in term.items()})
            )
        return packed
