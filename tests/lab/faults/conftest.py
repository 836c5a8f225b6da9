# SPDX-License-Identifier: Apache-2.0
"""The lab that faults are tried in; each test leaves it as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.lab.model import Lab
from tests.lab.conftest import deployed


@pytest.fixture(scope="session")
def faulty() -> Iterator[Lab]:
    """A deployed lab of two hops."""
    with deployed("faulty", hops=2) as made:
        yield made
