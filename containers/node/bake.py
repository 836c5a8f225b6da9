# SPDX-License-Identifier: Apache-2.0
"""Install the agent into an image as the common role would: `bake.py CHECKOUT`."""

from __future__ import annotations

import sys
from pathlib import Path

SOURCES = (".py", ".c", ".h")  # as in ansible/lookup_plugins/source_tree.py


def main(checkout: Path) -> None:
    """Make /opt/hopbench hold the agent and the BPF sources, root's own with fixed modes."""
    sys.path.insert(0, str(checkout / "ansible/roles/common/files"))
    import install_tree

    trees = {
        name: {
            path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
            for path in folder.rglob("*")
            if path.suffix in SOURCES
        }
        for name, folder in {"hop": checkout / "bench/hop", "bpf": checkout / "bpf"}.items()
    }
    install_tree.install(
        Path("/opt/hopbench"), trees, ["state", "client", "hop", "server"], check=False
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
