# SPDX-License-Identifier: Apache-2.0
"""The axes of a sweep: forwarding modes, cells, and the words a user may write for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate

from bench.errors import UsageError
from bench.hop.config import ATTACH as ATTACHES
from bench.hop.config import OFFLOADS as OFFLOADS
from bench.hop.modes import MODES as MODES
from bench.hop.payloads import SIZES_BYTES

PAYLOAD_SIZES = SIZES_BYTES
MAX_HOPS = 1000
MAX_CONCURRENCY = 1000
MAX_REQUESTS = 1_000_000
MAX_BLOCKS = 1000

KEY = ("mode", "attach", "offloads", "twin", "hops", "size_bytes", "concurrency")
"""The columns that name a sample's cell, in the order of `Cell.key`."""

Key = tuple[str, str, str, bool, int, int, int]

# Of runs that `bench reproduce` makes: modes that no chain of hosts has.
_OTHER_TITLES = {
    "legacy": "the 2022 filter",
    "legacy-today": "the 2022 filter with today's timestamps",
}
_SHOWN = 32


@dataclass(frozen=True, order=True)
class Cell:
    """One point of a sweep.

    hops: forwarders in the chain, 0 for a mode without hops. attach: one of ATTACHES where the
    mode knows the difference, otherwise empty. concurrency: connections at a time. requests: the
    total one sample asks for, 0 as long as the warm-up is to find it; `transactions` is what that
    comes to. offloads: one of OFFLOADS. twin: whether this is a cell's second appearance, under
    another label, to see how far the same thing differs from itself.
    """

    mode: str
    attach: str
    hops: int
    size_bytes: int
    concurrency: int
    requests: int
    offloads: str = OFFLOADS[0]
    twin: bool = False

    @property
    def repetitions(self) -> int:
        """Requests each of the `concurrency` users makes: the total, rounded up to whole rounds."""
        return -(-self.requests // self.concurrency)

    @property
    def transactions(self) -> int:
        """Transactions a complete sample consists of."""
        return self.concurrency * self.repetitions

    @property
    def label(self) -> str:
        """The cell's mode as tables name it."""
        return label(self.mode, self.attach, self.offloads, self.twin)

    @property
    def key(self) -> Key:
        """What tells two cells of a sweep apart; its parts are named by KEY."""
        return (
            self.mode,
            self.attach,
            self.offloads,
            self.twin,
            self.hops,
            self.size_bytes,
            self.concurrency,
        )


def label(mode: str, attach: str, offloads: str = OFFLOADS[0], twin: bool = False) -> str:
    """Return the word that names a mode in tables and pairs.

    `nft`, `xdp`, `xdp/generic`, `nft/native-offloads`, `xdp/again` for a twin.
    """
    return "/".join(
        [
            mode,
            *([attach] if attach not in ("", "native") else []),
            *([f"{offloads}-offloads"] if offloads != OFFLOADS[0] else []),
            *(["again"] if twin else []),
        ]
    )


def title(name: str) -> str:
    """Return how a sentence names the mode with this label: `XDP`, `nft (native offloads)`."""
    mode, *how = name.split("/")
    text = MODES[mode].title if mode in MODES else _OTHER_TITLES.get(mode, mode)
    return f"{text} ({', '.join(how).replace('-', ' ')})" if how else text


def parse_modes(values: Iterable[str], where: str = "--mode") -> tuple[str, ...]:
    """Return the modes named in `values`, each a comma-separated list, in order, once each.

    Raises UsageError for a word that is no mode, and when there is none.
    """
    modes = [word.strip() for value in values for word in value.split(",")]
    for mode in modes:
        if mode not in MODES:
            raise UsageError(f"{where}: unknown mode {_shown(mode)}; known are {', '.join(MODES)}")
    if not modes:
        raise UsageError(f"{where}: no mode given; known are {', '.join(MODES)}")
    return tuple(dict.fromkeys(modes))


def parse_attach(text: str, where: str = "--attach") -> tuple[str, ...]:
    """Return the XDP attach kinds of a comma-separated list. Raises UsageError."""
    kinds = [word.strip() for word in text.split(",")]
    for kind in kinds:
        if kind not in ATTACHES:
            raise UsageError(f"{where}: {_shown(kind)} is none of {', '.join(ATTACHES)}")
    return tuple(dict.fromkeys(kinds))


def parse_offloads(text: str, where: str = "--offloads") -> tuple[str, ...]:
    """Return the offload settings of a comma-separated list. Raises UsageError."""
    kinds = [word.strip() for word in text.split(",")]
    for kind in kinds:
        if kind not in OFFLOADS:
            raise UsageError(f"{where}: {_shown(kind)} is none of {', '.join(OFFLOADS)}")
    return tuple(dict.fromkeys(kinds))


def parse_hops(text: str, where: str = "--hops") -> tuple[int, ...]:
    """Return the hop counts of a text such as `1-5`, `1,3,5` or `1-3,5`, ascending, once each.

    Raises UsageError.
    """
    # How many ranges begin, less those that ended before: a file may have a hundred thousand.
    steps = [0] * (MAX_HOPS + 2)
    for part in text.split(","):
        first, dash, last = part.partition("-")
        low = _hop(first, part, where)
        high = _hop(last, part, where) if dash else low
        if low > high:
            raise UsageError(f"{where}: the range {_shown(part)} runs backwards")
        steps[low] += 1
        steps[high + 1] -= 1
    return tuple(hops for hops, ranges in enumerate(accumulate(steps)) if ranges)


def parse_sizes(text: str, where: str = "--size") -> tuple[int, ...]:
    """Return the payload sizes, in bytes, of a comma-separated list. Raises UsageError."""
    return tuple(dict.fromkeys(parse_size(part, where) for part in text.split(",")))


def parse_size(text: str, where: str = "--size") -> int:
    """Return one payload size in bytes. Raises UsageError that lists those there are."""
    number = _number(text)
    if number is None or number not in PAYLOAD_SIZES:
        raise UsageError(
            f"{where}: there is no payload of {_shown(text)} bytes; "
            f"sizes are {', '.join(map(str, PAYLOAD_SIZES))}"
        )
    return number


def parse_concurrencies(text: str, where: str = "--concurrency") -> tuple[int, ...]:
    """Return the connection counts of a comma-separated list. Raises UsageError."""
    return tuple(dict.fromkeys(parse_concurrency(part, where) for part in text.split(",")))


def _bounded(option: str, maximum: int) -> Callable[..., int]:
    def parse(text: str, where: str = option) -> int:
        number = _number(text)
        if number is None or not 1 <= number <= maximum:
            raise UsageError(f"{where}: {_shown(text)} is not a whole number from 1 to {maximum}")
        return number

    parse.__doc__ = f"Return a whole number from 1 to {maximum}. Raises UsageError."
    return parse


parse_concurrency = _bounded("--concurrency", MAX_CONCURRENCY)
_parse_requests = _bounded("--requests", MAX_REQUESTS)
parse_blocks = _bounded("--blocks", MAX_BLOCKS)


def parse_requests(text: str, where: str = "--requests") -> int:
    """Return a number of requests, or 0 for `auto`. Raises UsageError."""
    return 0 if text.strip() == "auto" else _parse_requests(text, where)


def _hop(text: str, part: str, where: str) -> int:
    number = _number(text)
    if number is None or not 1 <= number <= MAX_HOPS:
        raise UsageError(
            f"{where}: {_shown(part)} is not a hop count from 1 to {MAX_HOPS}; "
            "write for example 1-5 or 1,3,5"
        )
    return number


def _number(text: str) -> int | None:
    # Nine ASCII digits hold every limit above; int() alone would also take '1_0', '٣' and a
    # megabyte of digits.
    stripped = text.strip()
    return int(stripped) if re.fullmatch(r"[0-9]{1,9}", stripped) else None


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
