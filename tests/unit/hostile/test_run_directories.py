# SPDX-License-Identifier: Apache-2.0
"""Results of a stranger: whatever is in the files, a command reads them or says why not."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzzing import EVIL_TEXTS, Mutator, bench, fuzz, orderly, texts
from hypothesis import strategies as st
from synthetic import connections, tree, write_run

from bench import tables
from bench.cells import Cell
from bench.chain import Chain, Host
from bench.errors import BenchError
from bench.hop.host import HostCounters
from bench.reproduce.record import Reproduction
from bench.resume import reopen, require_same_chain

CELLS = (
    Cell("direct", "", 0, 624, 1, 10),
    Cell("nft", "", 1, 624, 1, 10),
    Cell("xdp", "native", 1, 624, 1, 10),
)
HOSTS = ("client", "hop1", "server")
CHAIN = Chain(
    Path("lab.ini"),
    Host("client", "client", "198.18.0.1", "eth0", 0),
    (Host("hop1", "hop", "198.18.0.2", "eth0", 7000),),
    Host("server", "server", "198.18.0.3", "eth0", 8000),
)
REFERENCE = Path(__file__).parents[3] / "results" / "reference-reproduce"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with everything a run may have, to be copied and spoiled."""
    folder = tmp_path_factory.mktemp("made")
    program = [sys.executable, "-m", "bench.hop", "facts", "lo"]
    facts = json.loads(subprocess.run(program, capture_output=True, check=True).stdout)
    counters = {f"n{i}": float(i) for i in range(3)} | HostCounters(("lo",)).snapshot()["counts"]
    ends = {"name": "client", "data_ip": "198.18.0.1", "data_nic": "eth0", "port": 0}
    hop = {**ends, "name": "hop1", "data_ip": "198.18.0.2", "port": 7000, "xdp_attach": "native"}
    reading = {"at": "2026-11-23T03:15:00.000Z", "offset_s": 0.1, "uncertainty_s": 0.001}
    path = write_run(
        folder,
        CELLS,
        lambda cell, block: 0.2 + 0.1 * cell.hops + 0.01 * block,
        blocks=2,
        warmups=True,
        connections=lambda cell, block: connections(10, 200.0 + 50 * cell.hops, spread=0.1),
        notes=["a note"],
        versions={"hopbench": "1.0", "python": "3.11"},
        host_facts=dict.fromkeys(HOSTS, facts),
        host_facts_after=dict.fromkeys(HOSTS, facts),
        findings=[{"host": "hop1", "level": "warning", "text": "swap is on", "remedy": "off"}],
        changes=["hop1: kernel 6.1, then 6.2"],
        clocks=[{name: {**reading, "boot_id": "x", "kernel": None} for name in HOSTS}],
        chain={
            "inventory": "lab.ini",
            "client": ends,
            "hops": [hop],
            "server": {**ends, "name": "server", "data_ip": "198.18.0.3", "port": 8000},
        },
        until_ci={"half_width": 0.05, "limit_s": 600.0},
    )
    for sample in ("001-0001", "001-0002"):
        rows = [{"host": name, "role": name.rstrip("1"), **counters} for name in HOSTS]
        tables.add_counters(path, sample, rows)
    tables.join(path)
    return path


def spoiled(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the run, alone in a folder of its own."""
    path = tmp_path / "results" / made.name
    shutil.rmtree(tmp_path / "results", ignore_errors=True)
    shutil.copytree(made, path)
    return path


COMMANDS = ("list", "show", "json", "compare", "diagnose", "resume", "join")


def look(path: Path, command: str) -> bool:
    """Have a command read the run; return whether it could. Whatever it does, it does in order."""
    results = ("--results", path.parent)
    if command == "resume":
        return resumed(path)
    if command == "join":
        return joined(path)
    words = {"list": (), "json": ("show", "--json", path.name)}.get(command, (command, path.name))
    return orderly(*bench(*(words or ("list",)), *results))


def resumed(path: Path) -> bool:
    """Go on with the run as far as that needs no hosts."""
    try:
        found = reopen(path.name, path.parent)
    except BenchError as error:
        assert error.one_line().isprintable()
        return False
    try:
        with contextlib.suppress(BenchError):
            require_same_chain(found, CHAIN)
        assert found.lacks >= 0 and found.blocks <= found.sweep.blocks
        found.begin(("again",), found.until)
    finally:
        found.writer.close()
    return True


def joined(path: Path) -> bool:
    """Join the tables, as the end of a run does."""
    try:
        tables.join(path)
    except BenchError as error:
        assert error.one_line().isprintable()
        return False
    return True


def test_the_run_is_sound(made: Path, tmp_path: Path) -> None:
    for command in COMMANDS:
        assert look(spoiled(made, tmp_path), command), command


def unchanged(folder: Path, before: dict[str, bytes], allowed: set[str]) -> None:
    """Require that nothing but some files of the run has changed."""
    now = tree(folder)
    differing = {name for name in {*now, *before} if now.get(name) != before.get(name)}
    assert {Path(name).name for name in differing} <= allowed


def test_any_run_json(made: Path, tmp_path: Path) -> None:
    document = json.loads((made / "run.json").read_text())
    path = spoiled(made, tmp_path)

    def check(changes: list[tuple[int, str, Any]], command: str) -> None:
        (path / "run.json").write_text(json.dumps(Mutator(document).apply(changes)))
        before = tree(tmp_path)
        look(path, command)
        unchanged(tmp_path, before, {"run.json"} if command == "resume" else set())

    fuzz(check, Mutator.changes, st.sampled_from(COMMANDS[:-1]), examples=20)


def test_any_samples(made: Path, tmp_path: Path) -> None:
    path = spoiled(made, tmp_path)
    rows = [line.split(",") for line in (made / "samples.csv").read_text().splitlines()]

    def check(changes: list[tuple[int, int, str, str]], command: str) -> None:
        table = [list(row) for row in rows]
        for row, column, value, kind in changes:
            line = table[row % len(table)]
            if kind == "cell":
                line[column % len(line)] = value
            elif kind == "more":
                line.insert(column % len(line), value)
            elif kind == "row":
                table.append(list(line))
            else:
                del line[column % len(line)]
        text = "\n".join(",".join(line) for line in table)
        (path / "samples.csv").write_bytes(text.encode(errors="surrogatepass"))
        before = tree(tmp_path)
        look(path, command)
        unchanged(tmp_path, before, {"run.json"} if command == "resume" else set())

    figures = st.sampled_from(
        ["0", "1", "9" * 15, "1e308", "0.000001", "5e-324", "true", "001-0009"]
    )
    change = st.tuples(
        st.integers(0, 30),
        st.integers(0, 40),
        figures | texts,
        st.sampled_from(["cell", "cell", "cell", "more", "row", "less"]),
    )
    lists = st.lists(change, min_size=1, max_size=4)
    fuzz(check, lists, st.sampled_from(COMMANDS[:-1]), examples=20)


@pytest.mark.parametrize("name", ["connections.parquet", "counters.parquet"])
def test_any_table(made: Path, tmp_path: Path, name: str) -> None:
    path = spoiled(made, tmp_path)
    whole = (made / name).read_bytes()

    def check(changes: list[tuple[int, bytes]], cut: int | None, command: str) -> None:
        data = bytearray(whole[:cut])
        for place, value in changes:
            place %= len(data) + 1
            data[place : place + len(value)] = value
        (path / name).write_bytes(data)
        look(path, command)

    changes = st.lists(st.tuples(st.integers(0, 2**20), st.binary(max_size=8)), max_size=3)
    cut = st.none() | st.integers(0, len(whole))
    fuzz(check, changes, cut, st.sampled_from(["show", "compare", "diagnose"]), examples=12)


def test_a_table_that_tells_pandas_what_to_make_of_it(made: Path, tmp_path: Path) -> None:
    path = spoiled(made, tmp_path)
    whole = pq.read_table(path / "counters.parquet")
    for said in (b"\xab", b"{", b"[]", b'{"index_columns": [{"kind": "range"}]}'):
        table = whole.replace_schema_metadata({b"pandas": said})
        pq.write_table(table, path / "counters.parquet")
        look(path, "show")


@pytest.mark.parametrize("column", ["sample", "host", "role"])
@pytest.mark.parametrize("kind", [pa.string(), pa.binary()], ids=str)
def test_words_of_a_table_that_are_no_text(
    made: Path, tmp_path: Path, column: str, kind: pa.DataType
) -> None:
    path = spoiled(made, tmp_path)
    table = pq.read_table(path / "counters.parquet")
    words = pa.array([b"\xab"] * len(table)).view(kind)
    table = table.set_column(table.column_names.index(column), column, words)
    pq.write_table(table, path / "counters.parquet")
    look(path, "show")


def test_any_columns(made: Path, tmp_path: Path) -> None:
    """Tables that are whole, of other columns than hopbench's, or of other values."""
    path = spoiled(made, tmp_path)
    columns = st.dictionaries(
        texts | st.sampled_from(["sample", "host", "role", "TcpRetransSegs", "cpu_user_s"]),
        st.sampled_from(
            [
                *([1, 2], [1.5, math.nan], ["a", "b"], [None, None], [[1], []], [b"x", b"\xff"]),
                *([2**63 - 1, 0], [True, False], [{"a": 1}, {"a": 2}], ["001-0001", "001-0002"]),
            ]
        ),
        min_size=1,
        max_size=6,
    )

    def check(made_of: dict[str, list[Any]], name: str, command: str) -> None:
        try:
            pq.write_table(pa.table(made_of), path / name)
        except (pa.ArrowException, UnicodeError):
            return
        look(path, command)

    names = st.sampled_from(["connections.parquet", "counters.parquet"])
    fuzz(check, columns, names, st.sampled_from(["show", "compare", "diagnose"]), examples=12)


@pytest.mark.parametrize("row", [{"host": "\udcff"}, {"\udcff": 1.0}])
@pytest.mark.parametrize("command", ["show", "join"])
def test_words_of_a_part_that_are_no_text(
    made: Path, tmp_path: Path, row: dict[str, Any], command: str
) -> None:
    path = spoiled(made, tmp_path)
    part = path / tables.COUNTERS_FOLDER / "001-0001.json"
    part.parent.mkdir()
    good = {"sample": "001-0001", "host": "client", "role": "client"}
    part.write_text(json.dumps([{**good, **row}]))
    look(path, command)


def test_any_part(made: Path, tmp_path: Path) -> None:
    """Counters that were not joined yet."""
    good = [{"sample": "001-0001", "host": "client", "role": "client", "TcpRetransSegs": 1.0}]

    def check(changes: list[tuple[int, str, Any]], command: str) -> None:
        path = spoiled(made, tmp_path)
        part = path / tables.COUNTERS_FOLDER / "001-0001.json"
        part.parent.mkdir()
        part.write_text(json.dumps(Mutator(good).apply(changes)))
        look(path, command)

    commands = st.sampled_from(["show", "diagnose", "join"])
    fuzz(check, Mutator.changes, commands, examples=12)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a folder that is nobody's business."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "kept.json").write_text("kept")
    return folder


PLACES = ["raw", "raw/agents", "raw/siege", "raw/counters", "raw/connections", "plots", "x/y/z"]
FILES = ["report.html", "samples.csv", "run.json", "raw/agents/client.log", "plots/a.svg"]


@pytest.mark.parametrize("command", ["report", "resume"])
@pytest.mark.parametrize("place", [*PLACES, *FILES])
def test_nothing_is_written_through_a_link(
    made: Path, tmp_path: Path, outside: Path, place: str, command: str
) -> None:
    path = spoiled(made, tmp_path)
    link = path / place
    link.parent.mkdir(parents=True, exist_ok=True)
    to = outside
    if place in FILES:
        to = outside / "kept.json"
        if link.exists():
            to.write_bytes(link.read_bytes())
            link.unlink()
    elif link.exists():
        shutil.rmtree(link)
    link.symlink_to(to)
    before = tree(outside)
    assert not look(path, command)
    assert tree(outside) == before
    assert link.is_symlink()


@pytest.mark.parametrize("command", ["list", "diagnose", "resume"])
@pytest.mark.parametrize(
    "name", ["run.json", "samples.csv", "connections.parquet", "counters.parquet"]
)
@pytest.mark.parametrize("kind", ["fifo", "device", "loop"])
def test_what_is_no_file_is_not_waited_for(
    made: Path, tmp_path: Path, command: str, name: str, kind: str
) -> None:
    path = spoiled(made, tmp_path)
    file = path / name
    file.unlink()
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        file.symlink_to(file)
    # A link to nothing is no file, and a run need not have every file.
    lacks = kind == "loop" and name.endswith(".parquet") and command == "diagnose"
    assert look(path, command) is (lacks or command == "list")


@pytest.mark.parametrize("text", EVIL_TEXTS[::3])
def test_no_name_of_a_run_leads_out(made: Path, tmp_path: Path, text: str) -> None:
    """Neither one that a user is given, nor one that a run gives itself."""
    path = spoiled(made, tmp_path)
    (tmp_path / "run.json").write_text("{}")
    document = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**document, "run_id": text}))
    before = tree(tmp_path)
    assert look(path, "list")
    assert look(path, "show") is (text.isprintable() and len(text) <= 200)
    assert tree(tmp_path) == before
    if "/" not in text and "\0" not in text and text not in ("", ".", "..") and len(text) < 200:
        with contextlib.suppress(UnicodeError):
            renamed = path.rename(path.with_name(text))
            for words in (("list",), ("list", "--json")):
                assert orderly(*bench(*words, "--results", renamed.parent))
            orderly(*bench("show", *(["--"] if text.startswith("-") else []), renamed))
    else:
        orderly(*bench("show", "--results", path.parent, "--", text))


def test_a_table_that_claims_to_be_huge(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes may hold a billion rows; here, of fewer than it takes for that."""
    path = spoiled(made, tmp_path)
    monkeypatch.setattr(tables, "MOST_ROWS", 100_000)
    pq.write_table(pa.table({"sample": ["001-0001"] * 100_001}), path / "counters.parquet")
    assert (path / "counters.parquet").stat().st_size < 5_000
    status, _, stderr = bench("diagnose", path)
    assert status == 1
    assert "counters.parquet is damaged: it has 100001 rows of 1 columns" in stderr


def test_any_reproduction(made: Path, tmp_path: Path) -> None:
    whole = json.loads((REFERENCE / "reproduce.json").read_text())
    folder = tmp_path / "results" / "reproduce-x"
    folder.mkdir(parents=True)

    def check(changes: list[tuple[int, str, Any]]) -> None:
        (folder / "reproduce.json").write_text(json.dumps(Mutator(whole).apply(changes)))
        try:
            Reproduction.open(folder)
        except BenchError as error:
            assert error.one_line().isprintable()

    fuzz(check, Mutator.changes, examples=35)
