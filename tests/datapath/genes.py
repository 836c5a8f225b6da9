# SPDX-License-Identifier: Apache-2.0
"""What hypothesis draws, and the tables that give it a meaning."""

from __future__ import annotations

import random
from typing import NamedTuple

from hypothesis import strategies as st

from tests.datapath.speech import (
    ACK,
    FIN,
    RST,
    SYN,
)
from tests.datapath.worlds import (
    ECE,
    LONGEST,
    PSH,
    URG,
)


class Gene(NamedTuple):
    """What decides about one step; each from 0 to 255."""

    kind: int
    who: int
    port: int
    flags: int
    size: int
    text: int
    ttl: int
    header: int
    fragment: int
    padding: int
    tag: int
    link: int
    oddity: int
    at: int
    value: int
    more: int


class Drawn(NamedTuple):
    """A sequence as hypothesis draws it."""

    mixture: int
    genes: list[bytes]


def sequences() -> st.SearchStrategy[Drawn]:
    """Sequences of up to 40 steps."""
    gene = st.binary(min_size=len(Gene._fields), max_size=len(Gene._fields))
    genes = st.lists(gene, min_size=30, max_size=40)
    return st.builds(Drawn, st.integers(0, len(MIXTURES) - 1), genes)


def table(**weights: int) -> tuple[str, ...]:
    """A choice for each value of an octet; what is named first also takes what is left over."""
    rest = [name for name, weight in list(weights.items())[1:] for _ in range(weight)]
    first = next(iter(weights))
    return (*[first] * (256 - len(rest)), *rest)


MIXTURES = (
    table(
        nothing=8,
        open=46,
        forward=60,
        back=70,
        error=36,
        stray=10,
        noise=3,
        age=12,
        next=8,
        collect=3,
    ),
    table(
        nothing=8,
        open=160,
        forward=20,
        back=30,
        error=6,
        stray=6,
        noise=1,
        age=16,
        next=6,
        collect=4,
    ),
    table(
        nothing=8,
        open=30,
        forward=30,
        back=30,
        error=130,
        stray=10,
        noise=2,
        age=8,
        next=4,
        collect=2,
    ),
)
FLAGS = table(A=0, PA=50, S=24, FA=50, RA=14, R=6, F=5, SA=40, FPU=2, SF=2, SR=2, SEC=4, none=2)
LETTERS = {"F": FIN, "S": SYN, "R": RST, "P": PSH, "A": ACK, "U": URG, "E": ECE, "C": 128}
BITS = tuple(sum(LETTERS.get(letter, 0) for letter in name) for name in FLAGS)
OPENING_BITS = tuple(
    {"S": SYN, "SEC": SYN | ECE | 128, "SP": SYN | PSH, "SA": SYN | ACK}[name]
    for name in table(S=0, SEC=10, SP=8, SA=3)
)
SIZES = (0, 0, 1, 2, 3, 8, 24, 100, 101, 512)
TTLS = tuple(int(name[1:]) for name in table(t64=0, t255=20, t2=12, t1=5, t0=3, t128=20))
TEXT = random.Random(1).randbytes(LONGEST + 256)
ODDITIES = table(
    none=0,
    zero_checksum=6,
    checksum_to_zero=8,
    wrong_checksum=8,
    ones_checksum=3,
    flip=14,
    set=8,
    truncate=6,
    length=5,
    group=2,
    other=2,
)
ADDRESSES = table(client=0, neighbour=64, silent=34, far=44, behind=36, nowhere=4, hop=2, next=8)
AGES = (2, 10, 29, 31, 59, 61, 64, 66, 100, 179, 181, 239, 241, 3600, 7439, 7441)
