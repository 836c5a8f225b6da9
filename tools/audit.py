# SPDX-License-Identifier: Apache-2.0
"""Ask the Python Package Index which pins of a lock file have known vulnerabilities.

Usage: audit.py LOCK [OPTION…]    options are pip-audit's
Exit status: 0 none, 1 some, which are printed, 2 it is not known: the service did not answer for
every pin.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from pip_requirements_parser import RequirementsFile

_PIP_AUDIT = (
    # A pin of which the service knows nothing is a failure, and no `No known vulnerabilities`.
    *("-m", "pip_audit", "--strict", "--disable-pip", "--require-hashes"),
    *("--progress-spinner", "off", "--format", "json"),
)


def sheets(lock: Path) -> list[str]:
    """Return all pins of a lock file as requirements without markers, each name once in a text.

    pip-audit leaves out what is for another Python or system than the one that it runs under.
    """
    found: list[dict[str, str]] = []
    for pin in RequirementsFile.from_file(str(lock)).requirements:
        sheet = next((each for each in found if pin.name not in each), None)
        if sheet is None:
            found.append(sheet := {})
        sheet[pin.name] = " ".join(
            [f"{pin.name}{pin.specifier}", *(f"--hash={each}" for each in pin.hash_options)]
        )
    return ["\n".join(sheet.values()) + "\n" for sheet in found]


def audit(sheet: Path, options: list[str]) -> tuple[int, list[str]]:
    """Return how many pins were looked at, and a line for each vulnerability.

    Raises ValueError, with what pip-audit says, when it could not look at all of them.
    """
    done = subprocess.run(
        [sys.executable, *_PIP_AUDIT, "--requirement", str(sheet), *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        pins = json.loads(done.stdout)["dependencies"]
    except ValueError:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        lines = errors or done.stderr.strip().splitlines() or ["it said nothing"]
        raise ValueError(lines[-1].removeprefix("ERROR:pip_audit._cli:")) from None
    lines = [
        f"{pin['name']} {pin['version']}: {each['id']}"
        f" (fixed in {', '.join(each['fix_versions']) or 'no release'})"
        for pin in pins
        for each in pin["vulns"]
    ]
    if bool(lines) != bool(done.returncode):
        raise ValueError(f"pip-audit ends with status {done.returncode}")
    return len(pins), lines


def main(arguments: list[str]) -> int:
    """Audit the lock file named first."""
    lock, *options = arguments
    count = 0
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(sheets(Path(lock))):
            sheet = Path(folder) / f"{number}.txt"
            sheet.write_text(text)
            try:
                looked_at, found = audit(sheet, options)
            except ValueError as error:
                print(f"audit: not known, no answer for every pin: {error}", file=sys.stderr)
                return 2
            count, lines = count + looked_at, lines + found
    print("\n".join([*lines, f"{count} pins, {len(lines)} known vulnerabilities"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
