# SPDX-License-Identifier: Apache-2.0
"""Tests of the lab and the datapath need root and BPF: marked as such, skipped with the reason."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench.lab.preflight import bpf_problem

_PRIVILEGED = tuple(Path(__file__).parent / name for name in ("lab", "datapath"))


def missing() -> str | None:
    """Return why tests that need a lab cannot run here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    return bpf_problem()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a lab, and skip it where there can be none."""
    reason = missing()
    for item in items:
        if any(folder in item.path.parents for folder in _PRIVILEGED):
            item.add_marker(pytest.mark.lab)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))
