# SPDX-License-Identifier: Apache-2.0
"""Make folders on this host equal to the packed sources on standard input.

Runs on hosts under the system's Python (3.9 or later), standard library only:
`install_tree.py [--check] ROOT [DIRECTORY…] < packed`. The directories are made below ROOT as well,
with whatever is in them left alone that is root's alone. Prints `changed: …` or `unchanged`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

CACHE = "__pycache__"


def unpack(packed: str) -> dict[str, dict[str, str]]:
    """Return folder name → relative path → text."""
    trees: dict[str, dict[str, str]] = json.loads(zlib.decompress(base64.b64decode(packed)))
    for name, files in trees.items():
        for part in (name, *files):
            if part.startswith("/") or ".." in Path(part).parts:
                raise ValueError(f"path leaves its folder: {part}")
    return trees


def is_right(path: Path, mode: int, content: bytes | None) -> bool:
    """Say whether `path` is root's own, has `mode`, and is the file (None: a directory) wanted."""
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if (found.st_uid, found.st_gid, found.st_mode & 0o7777) != (0, 0, mode):
        return False
    if content is None:
        return path.is_dir() and not path.is_symlink()
    return path.is_file() and not path.is_symlink() and path.read_bytes() == content


def make_dir(path: Path) -> None:
    """Make `path` a directory of root's own with mode 0755."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        path.unlink()
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    os.chown(path, 0, 0)
    path.chmod(0o755)


def write_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` in one step, root's own with mode 0644."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            os.fchmod(out.fileno(), 0o644)
            os.fchown(out.fileno(), 0, 0)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def install(
    root: Path, trees: dict[str, dict[str, str]], others: list[str], *, check: bool
) -> list[str]:
    """Make the folders below `root` hold `trees` and nothing else; return what had to change.

    others: directories to make below `root` besides, whatever they hold. check: report only.
    Python's bytecode caches count as absent; they go when anything changes, because a cache is
    matched by size and whole seconds of time, which a quick edit can keep.
    """
    directories = [root, *(root / name for name in others)]
    wanted: dict[Path, bytes] = {}
    for name, files in trees.items():
        directories.append(root / name)
        for relative, text in files.items():
            path = root / name / relative
            wanted[path] = text.encode()
            for parent in reversed(path.relative_to(root).parents):
                if root / parent not in directories:
                    directories.append(root / parent)

    changed: list[str] = []
    for directory in directories:
        if not is_right(directory, 0o755, None):
            changed.append(str(directory))
            if not check:
                make_dir(directory)
    for name in others:
        changed += remove_strange(root / name, check=check)
    for path, content in wanted.items():
        if not is_right(path, 0o644, content):
            changed.append(str(path))
            if not check:
                write_file(path, content)
    for name in trees:
        changed += remove_others(root / name, {*wanted, *directories}, check=check)
    if changed and not check:
        for name in trees:
            for cache in list((root / name).rglob(CACHE)):
                shutil.rmtree(cache)
    return changed


def remove_strange(folder: Path, *, check: bool) -> list[str]:
    """Remove what below `folder` is not root's, or others may write to; return what that was.

    Root acts on records there: those that somebody else may have written say nothing.
    """
    removed: list[str] = []
    for path in sorted(folder.rglob("*"), reverse=True):
        try:
            found = path.lstat()
        except FileNotFoundError:
            # An agent that is at work has files that come and go.
            continue
        # Everybody may do everything with a link, by its mode.
        if found.st_uid == 0 and (path.is_symlink() or not found.st_mode & 0o022):
            continue
        removed.append(str(path))
        if not check:
            remove(path)
    return removed


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def remove_others(folder: Path, keep: set[Path], *, check: bool) -> list[str]:
    """Remove what is below `folder` and not in `keep`; return what that was."""
    removed: list[str] = []
    for path in sorted(folder.rglob("*"), reverse=True):
        if path in keep or CACHE in path.relative_to(folder).parts:
            continue
        removed.append(str(path))
        if not check:
            remove(path)
    return removed


def main(arguments: list[str]) -> int:
    """Install what standard input holds below the folder named in `arguments`."""
    check = arguments[:1] == ["--check"]
    root, *others = arguments[check:]
    if not Path(root).is_absolute():
        print(f"not an absolute path: {root}", file=sys.stderr)
        return 2
    # Nobody else gets to write in between, whatever the login has set.
    os.umask(0o022)
    changed = install(Path(root), unpack(sys.stdin.read()), others, check=check)
    print(f"changed: {' '.join(changed)}" if changed else "unchanged")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
