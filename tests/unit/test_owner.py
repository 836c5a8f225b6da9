# SPDX-License-Identifier: Apache-2.0
"""Whose something is: a process that ends is gone, and no later one of its id is taken for it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from bench.owner import Owner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="owners are told by /proc")


def test_this_process_is_there() -> None:
    me = Owner.me()
    assert me.here
    assert not me.gone


def test_a_process_that_has_ended_is_gone_also_before_it_is_reaped() -> None:
    process = subprocess.Popen(["sleep", "60"])
    owner = Owner.of(process.pid)
    assert not owner.gone
    process.kill()
    process.wait()
    assert owner.gone


def test_another_process_of_the_same_id_is_not_taken_for_it() -> None:
    assert replace(Owner.me(), started=Owner.me().started + 1).gone


def test_of_another_machine_nothing_is_certain() -> None:
    there = replace(Owner.me(), boot="00000000", pid=4194304)
    assert not there.here
    assert not there.gone


def test_a_line_of_text_and_back() -> None:
    assert Owner.parse(Owner.me().text) == Owner.me()
    assert Owner.me().text.isascii()


@pytest.mark.parametrize(
    "text", ["", "me", "me 1 2", "me 1 2 x/y", "me one 2 ab", "me 1 2 ab c", "me 1 2 ab\n"]
)
def test_what_is_no_owner(text: str) -> None:
    assert Owner.parse(text) is None
