# SPDX-License-Identifier: Apache-2.0
"""Cells, and the words a user may write for the axes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import cells as axes
from bench.cells import KEY, PAYLOAD_SIZES, Cell, label, title
from bench.errors import UsageError

PARSERS = {
    "hops": axes.parse_hops,
    "sizes": axes.parse_sizes,
    "concurrencies": axes.parse_concurrencies,
    "requests": axes.parse_requests,
    "blocks": axes.parse_blocks,
    "attach": axes.parse_attach,
    "offloads": axes.parse_offloads,
}


@pytest.mark.parametrize(
    ("requests", "concurrency", "repetitions", "transactions"),
    [
        (100, 1, 100, 100),
        (100, 25, 4, 100),
        (101, 25, 5, 125),
        (1, 25, 1, 25),
        (999, 1000, 1, 1000),
    ],
)
def test_transactions_are_whole_rounds(
    requests: int, concurrency: int, repetitions: int, transactions: int
) -> None:
    cell = Cell("nft", "", 1, 624, concurrency, requests)
    assert (cell.repetitions, cell.transactions) == (repetitions, transactions)


def test_a_cell_without_requests_has_no_transactions_yet() -> None:
    cell = Cell("nft", "", 1, 624, 25, 0)
    assert (cell.repetitions, cell.transactions) == (0, 0)


def test_a_key_names_a_cell_whatever_it_requests() -> None:
    cell = Cell("xdp", "native", 3, 624, 25, 100, "native", True)
    assert cell.key == tuple(getattr(cell, name) for name in KEY)
    assert replace(cell, requests=5).key == cell.key
    others = [
        *(replace(cell, **{name: "x"}) for name in ("mode", "attach", "offloads")),
        *(replace(cell, **{name: 7}) for name in ("hops", "size_bytes", "concurrency")),
        replace(cell, twin=False),
    ]
    assert len({cell.key, *(other.key for other in others)}) == 8


def test_cells_are_hashable_and_ordered() -> None:
    one, two = Cell("nft", "", 1, 624, 1, 10), Cell("nft", "", 2, 624, 1, 10)
    assert len({one, two, replace(one)}) == 2
    assert sorted([two, one]) == [one, two]


@pytest.mark.parametrize(
    ("how", "name", "said"),
    [
        (("direct", ""), "direct", "direct"),
        (("xdp", "native"), "xdp", "XDP"),
        (("xdp", "generic"), "xdp/generic", "XDP (generic)"),
        (("xdp", "offload"), "xdp/offload", "XDP (offload)"),
        (("later", ""), "later", "later"),
        (("later", "", "equal", True), "later/again", "later (again)"),
        (("nft", "", "native"), "nft/native-offloads", "nft (native offloads)"),
        (("xdp", "native", "native"), "xdp/native-offloads", "XDP (native offloads)"),
        (("xdp", "native", "equal", True), "xdp/again", "XDP (again)"),
        (
            ("xdp", "generic", "native", True),
            "xdp/generic/native-offloads/again",
            "XDP (generic, native offloads, again)",
        ),
    ],
)
def test_labels(how: tuple[Any, ...], name: str, said: str) -> None:
    assert label(*how) == name
    assert title(name) == said
    mode, attach, *rest = how
    assert Cell(mode, attach, 1, 624, 1, 1, *rest).label == name


@pytest.mark.parametrize(
    ("text", "hops"),
    [
        ("1", (1,)),
        ("1-5", (1, 2, 3, 4, 5)),
        ("1,3,5", (1, 3, 5)),
        ("1-3,5", (1, 2, 3, 5)),
        ("5,1-2,2", (1, 2, 5)),
        (" 1 , 2 - 3 ", (1, 2, 3)),
        ("1000", (1000,)),
    ],
)
def test_hops(text: str, hops: tuple[int, ...]) -> None:
    assert axes.parse_hops(text) == hops


@pytest.mark.parametrize(
    ("parser", "text", "message"),
    [
        (
            "hops",
            "0",
            "--hops: '0' is not a hop count from 1 to 1000; write for example 1-5 or 1,3,5",
        ),
        (
            "hops",
            "1001",
            "--hops: '1001' is not a hop count from 1 to 1000; write for example 1-5 or 1,3,5",
        ),
        ("hops", "5-1", "--hops: the range '5-1' runs backwards"),
        (
            "sizes",
            "625",
            "--size: there is no payload of '625' bytes; sizes are 312, 624, 1248, 2496, 4992, "
            "9984, 19968, 39936, 79872, 159744, 319488, 638976, 1277952, 2555904",
        ),
        ("concurrencies", "0", "--concurrency: '0' is not a whole number from 1 to 1000"),
        ("concurrencies", "1,1001", "--concurrency: '1001' is not a whole number from 1 to 1000"),
        ("requests", "1000001", "--requests: '1000001' is not a whole number from 1 to 1000000"),
        ("blocks", "1.5", "--blocks: '1.5' is not a whole number from 1 to 1000"),
        ("attach", "skb", "--attach: 'skb' is none of native, generic, offload"),
        ("offloads", "off", "--offloads: 'off' is none of equal, native"),
    ],
)
def test_messages(parser: str, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        PARSERS[parser](text)
    assert caught.value.one_line() == message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(
    "text",
    [
        *("", ",", "1,", "-", "1-", "-1", "+1", "1_0", "1-2-3", "0x1", "1e2", "٣", "²", "½"),
        *("9" * 5000, "1-" + "9" * 5000, "1" * 10, "a" * 100_000, "'; rm -rf", "\n", "\x1b[31m"),
        "1\x00",
    ],
)
def test_nonsense_is_refused_in_one_short_line(parser: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        PARSERS[parser](text)
    line = caught.value.one_line()
    assert len(line) < 250
    assert line.isprintable()


@given(st.text())
def test_any_text_parses_or_is_a_usage_error(text: str) -> None:
    for parse in PARSERS.values():
        try:
            parse(text)
        except UsageError as error:
            assert error.one_line().isprintable()


@given(st.sets(st.integers(1, 60), min_size=1))
def test_hops_of_any_set_come_back(hops: set[int]) -> None:
    assert axes.parse_hops(",".join(map(str, hops))) == tuple(sorted(hops))


def test_values_appear_once() -> None:
    assert axes.parse_sizes("624,312,624") == (624, 312)
    assert axes.parse_concurrencies("25,1,25") == (25, 1)
    assert axes.parse_modes(["xdp,nft", "xdp", "direct"]) == ("xdp", "nft", "direct")
    assert axes.parse_attach("generic,native,generic") == ("generic", "native")
    assert axes.parse_attach("offload") == ("offload",)
    assert axes.parse_offloads(" native, equal,native") == ("native", "equal")


@pytest.mark.parametrize(("text", "requests"), [("auto", 0), (" auto ", 0), ("1", 1), ("99", 99)])
def test_requests_may_be_left_open(text: str, requests: int) -> None:
    assert axes.parse_requests(text) == requests


@pytest.mark.parametrize("text", ["0", "AUTO", "automatic", "auto,1", "-1"])
def test_requests_that_are_neither_a_number_nor_auto(text: str) -> None:
    with pytest.raises(UsageError, match="is not a whole number from 1 to 1000000"):
        axes.parse_requests(text)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["nginx"], "--mode: unknown mode 'nginx'; known are direct, socat, nft, xdp"),
        (["nft,"], "--mode: unknown mode ''; known are direct, socat, nft, xdp"),
        (["XDP"], "--mode: unknown mode 'XDP'; known are direct, socat, nft, xdp"),
        ([], "--mode: no mode given; known are direct, socat, nft, xdp"),
    ],
)
def test_unknown_modes(values: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        axes.parse_modes(values)
    assert caught.value.one_line() == message


def test_payload_sizes_are_those_of_the_2022_report() -> None:
    assert PAYLOAD_SIZES[0] == 312
    assert PAYLOAD_SIZES[-1] == 2_555_904
    assert len(PAYLOAD_SIZES) == 14
