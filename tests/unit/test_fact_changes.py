# SPDX-License-Identifier: Apache-2.0
"""What is said of two collections of facts: each row changes something."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest

from bench.fact_changes import by_role, changes, differences

FACTS: dict[str, Any] = {
    "kernel": "6.18.0",
    "cpu": "a CPU",
    "boot_id": "one",
    "governor": "performance",
    "turbo": False,
    "load_1min": 0.0,
    "time": 1000.0,
    "tcp_time_wait": 3,
    "clock_sources": ["tsc", "hpet"],
    "memory": {"total_bytes": 8_000_000_000, "available_bytes": 7_000_000_000},
    "swap": {"total_bytes": 1 << 30, "used_bytes": 0, "devices": []},
    "tools": {"siege": "4.0.7", "clang": None},
    "nft_tables": ["inet filter"],
    "sysctls": {"net.ipv4.tcp_timestamps": "1", "net.netfilter.nf_conntrack_max": None},
    "nic": {
        "mac": "02:00:00:00:00:02",
        "offloads": {"generic-receive-offload": "on"},
        "irqs": {"40": {"affinity": "0-3", "effective": "0"}},
        "qdiscs": [{"kind": "mq", "handle": "0:"}, {"kind": "fq_codel", "handle": "0:"}],
        "rps_cpus": ["0", "0"],
        "xdp_mode": "",
        "xdp_program": None,
        "xdp_program_name": None,
    },
    "egress_nic": None,
}
MISSING = object()


def facts(**changed: Any) -> dict[str, Any]:
    """Return the facts with some changed: `nic__offloads={}`; MISSING takes one away."""
    found = deepcopy(FACTS)
    for name, value in changed.items():
        place = found
        *path, last = name.split("__")
        for key in path:
            place = place[key]
        place[last] = value
        if value is MISSING:
            del place[last]
    return found


def change(**changed: Any) -> list[str]:
    return changes({"hop2": FACTS}, {"hop2": facts(**changed)})


def difference(**changed: Any) -> list[str]:
    return differences({"hop2": FACTS}, {"hop2": facts(**changed)})


OURS = {"nic__xdp_mode": "native", "nic__xdp_program": 7, "nic__xdp_program_name": "hopbench_fwd"}
THEIRS = {**OURS, "nic__xdp_program_name": "xdp_dispatcher"}
OTHER_IRQ = {"40": {"affinity": "0-3", "effective": "0"}, "41": {"affinity": "1"}}


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (
            {"nic__offloads": {"generic-receive-offload": "off"}},
            "hop2: nic.offloads.generic-receive-offload was on and is off",
        ),
        ({"governor": "powersave"}, "hop2: governor was performance and is powersave"),
        ({"governor": None}, "hop2: governor was performance and is missing"),
        ({"turbo": True}, "hop2: turbo was false and is true"),
        ({"clock_sources": ["hpet"]}, "hop2: clock_sources was tsc, hpet and is hpet"),
        ({"clock_sources": []}, "hop2: clock_sources was tsc, hpet and is none"),
        ({"tools__clang": "14.0.6"}, "hop2: tools.clang was missing and is 14.0.6"),
        ({"tools__siege": ""}, "hop2: tools.siege was 4.0.7 and is empty"),
        ({"nic": None}, "hop2: nic was there and is missing"),
        ({"egress_nic": FACTS["nic"]}, "hop2: egress_nic was missing and is there"),
        (
            {"sysctls__net.ipv4.tcp_timestamps": "0"},
            "hop2: sysctls.net.ipv4.tcp_timestamps was 1 and is 0",
        ),
        ({"nic__rps_cpus": ["0", "f"]}, "hop2: nic.rps_cpus was 0, 0 and is 0, f"),
        (
            {"nic__qdiscs": [{"kind": "netem", "handle": "1:"}]},
            "hop2: nic.qdiscs.kinds was fq_codel, mq and is netem",
        ),
        (
            {"nic__irqs": {"40": {"affinity": "0-3", "effective": "2"}}},
            "hop2: nic.irqs.40.effective was 0 and is 2",
        ),
        ({"nic__irqs": OTHER_IRQ}, "hop2: nic.irqs.41 was missing and is there"),
        ({"nft_tables": []}, "hop2: nft_tables was inet filter and is none"),
        (
            {"swap__used_bytes": 1 << 29},
            "hop2: swap.used_bytes was 0 and is 536870912",
        ),
        ({**THEIRS}, "hop2: nic.xdp_mode was empty and is native"),
        ({"boot_id": "two"}, "hop2: the host was restarted"),
    ],
)
def test_a_change(changed: dict[str, Any], text: str) -> None:
    assert change(**changed) == [text]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"time": 2000.0, "load_1min": 3.5, "tcp_time_wait": 20000},
        {"memory__available_bytes": 10, "memory__total_bytes": 8_000_100_000},
        {"swap__used_bytes": 1 << 20},
        {"forwarders": {"xdp native": {"prog_id": 7}}},
        OURS,
        {"nft_tables": ["inet filter", "ip hopbench"]},
        {"nft_tables": ["inet filter", "ip6 hopbench"]},
        # nft loads connection tracking.
        {"sysctls__net.netfilter.nf_conntrack_max": "262144"},
        {"nic__qdiscs": [{"kind": "fq_codel", "handle": "8:"}, {"kind": "mq", "handle": "1:"}]},
        # Another version knows more facts, or fewer.
        {"kernel": MISSING, "nic__offloads": {}, "more": 1, "tools__more": "1.0"},
    ],
)
def test_no_change(changed: dict[str, Any]) -> None:
    assert change(**changed) == []
    assert changes({"hop2": facts(**changed)}, {"hop2": FACTS}) == []


@pytest.mark.parametrize(
    ("changed", "texts"),
    [
        ({"kernel": "6.1.0"}, ["hop2: kernel is 6.18.0 here and 6.1.0 there"]),
        ({"boot_id": "two", "nic__mac": "02:00:00:00:00:09", "nic__irqs": OTHER_IRQ}, []),
        (
            {"memory__total_bytes": 4_000_000_000},
            ["hop2: memory.total_bytes is 8000000000 here and 4000000000 there"],
        ),
    ],
)
def test_differences(changed: dict[str, Any], texts: list[str]) -> None:
    assert difference(**changed) == texts


def test_names_of_two_runs() -> None:
    found = differences({"a": {"os": "x"}}, {"a": {"os": "y"}}, names=("in {1}", "in B"))
    assert found == ["a: os is x in {1} and y in B"]


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        ([f"hop{n}" for n in range(1, 9)], "hop1, hop2, hop3, hop4, hop5, hop6, hop7 and hop8"),
        ([f"hop{n}" for n in range(20)], "hop0, hop1, hop2, hop3, hop4, hop5, hop6 and 13 more"),
    ],
)
def test_hosts_that_say_the_same_share_a_line(hosts: list[str], said: str) -> None:
    before = dict.fromkeys(hosts, FACTS)
    after = dict.fromkeys(hosts, facts(governor="powersave"))
    assert changes(before, after) == [f"{said}: governor was performance and is powersave"]


def test_one_host_differs_from_the_rest() -> None:
    before = {"hop1": FACTS, "hop2": FACTS, "hop3": FACTS}
    after = {"hop1": facts(kernel="7"), "hop2": facts(kernel="8"), "hop3": facts(kernel="7")}
    assert changes(before, after) == [
        "hop1 and hop3: kernel was 6.18.0 and is 7",
        "hop2: kernel was 6.18.0 and is 8",
    ]


def test_long_texts_are_shown_where_they_part() -> None:
    line = "root=/dev/sda " + "quiet " * 40
    (text,) = changes({"a": {"cmdline": line}}, {"a": {"cmdline": f"{line}isolcpus=1"}})
    assert len(text) < 220
    assert text.endswith("quiet isolcpus=1")
    (text,) = changes({"a": {"x": "1" * 1000}}, {"a": {"x": "2" * 1000}})
    assert text == f"a: x was {'1' * 79}… and is {'2' * 79}…"


# Files of strangers


def nested(depth: int, leaf: Any, kind: type) -> Any:
    for _ in range(depth):
        leaf = {"a": leaf} if kind is dict else [leaf]
    return leaf


@pytest.mark.parametrize("kind", [dict, list])
def test_facts_without_end(kind: type) -> None:
    one, other = ({"x": nested(5000, leaf, kind)} for leaf in (1, 2))
    (text,) = changes({"a": one}, {"a": other})
    assert text.endswith("was 1 and is 2")
    assert len(text) < 100
    assert changes({"a": one}, {"a": one}) == []
    (text,) = changes({"a": one}, {"a": {"x": 1}})
    assert text == "a: x was there and is 1"


@pytest.mark.parametrize(
    "odd",
    [
        *(None, True, 0, -1, 1.5, 10**400, "", "text", [], {}, [None], [[]], [{}], {"a": None}),
        *(json.loads("NaN"), json.loads("Infinity"), "\ud800", [1, "a", None, {"b": [1]}]),
    ],
)
def test_any_json_in_any_place(odd: Any) -> None:
    for work in (changes, differences):
        assert work({"a": odd}, {"a": odd}) == []
        assert work({"a": odd}, {"a": FACTS}) == [] or isinstance(odd, dict)
        work({"a": FACTS}, {"a": odd})
        for name in FACTS:
            changed = {"a": {**FACTS, name: odd}}
            assert work(changed, changed) == []
            for texts in (work({"a": FACTS}, changed), work(changed, {"a": FACTS})):
                assert all(text.startswith("a: ") for text in texts)
        for name in FACTS["nic"]:
            changed = {"a": {**FACTS, "nic": {**FACTS["nic"], name: odd}}}
            assert work(changed, changed) == []
            work({"a": FACTS}, changed)
            work(changed, {"a": FACTS})


def test_nothing_invisible_reaches_a_terminal() -> None:
    (text,) = changes({"a\x1b[2J": {"x\n\x07": "1"}}, {"a\x1b[2J": {"x\n\x07": "\x1b[31m\u202e2"}})
    assert text == "a?[2J: x?? was 1 and is ?[31m?2"


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        (
            {"client": {"name": "c"}, "hops": [{"name": "h"}, {"name": "i"}], "server": {}},
            {"client": 1, "hop 1": 2},
        ),
        ({"server": {"name": "s"}}, {"server": 3}),
        ({"client": "c", "hops": {"name": "h"}, "server": {"name": ["s"]}}, {}),
        ({"hops": [None, {"name": "h"}]}, {"hop 2": 2}),
        ({}, {}),
    ],
)
def test_hosts_by_role(chain: dict[str, Any], expected: dict[str, int]) -> None:
    assert by_role({"c": 1, "h": 2, "s": 3}, chain) == expected
