# SPDX-License-Identifier: Apache-2.0
"""The page of a document, the words of a run's verdict, and `bench report`."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from click.testing import CliRunner
from synthetic import connections, read_run, sample, write_run

from bench.cells import Cell
from bench.cli import cli
from bench.compare import compare
from bench.errors import BenchError
from bench.report import chain, files, hosts
from bench.report.document import Column, Document, Entry, Facts, Figure, Section, Table, Words
from bench.report.headline import headline
from bench.report.page import render
from bench.sweep import cross

COST_US = {"direct": 0.0, "socat": 490.0, "nft": 34.0, "xdp": 6.5}
SVG = '<svg width="100" height="50" viewBox="0 0 100 50"><g style="fill:var(--ink)" /></svg>'
SCHEMA_1 = Path(__file__).parent / "data" / "schema1"


def figure(name: str = "one", **values: Any) -> Figure:
    """Return a figure."""
    known = {
        "title": "Title",
        "svg": SVG,
        "png": b"",
        "alt": "What",
        "caption": "",
        "csv": "a\n1\n",
    }
    return Figure(**{"name": name, **known, **values})


def table(rows: list[list[Entry]], name: str = "numbers") -> Table:
    """Return a table of a word and a number."""
    return Table(name, "Numbers", [Column("word"), Column("number", True)], rows, "a,b\n")


def page(*items: Any, verdict: tuple[str, ...] = ("One.",), title: str = "Title") -> str:
    """Return the page of a document with one section."""
    return render(Document(title, "Below", verdict, [Section("part", "Part", items)]))


def took(cell: Cell, block: int) -> dict[str, Any]:
    """Return connections of 100 µs and each hop's cost."""
    response_us = 100 + COST_US[cell.mode] * cell.hops + 0.1 * block
    return connections(cell.transactions, response_us)


def run(folder: Path, modes: tuple[str, ...], hops: tuple[int, ...], **more: Any) -> Path:
    """Write a run of some modes and hop counts."""
    cells = cross(modes, ("native",), hops, (624, 9984), (1,), 20)
    return write_run(folder, cells, lambda *_: 0.01, connections=took, **more)


def said(path: Path) -> list[str]:
    """Return the verdict of a run."""
    reader = read_run(path)
    return headline(reader.meta, compare(reader))


# Pages


def test_its_one_script_is_allowed_by_hash() -> None:
    text = page(Words(["p"]))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]+)"', text)[0])
    assert f"script-src 'sha256-{digest}'" in policy
    assert (
        policy.startswith("default-src 'none'") and "unsafe-inline" in policy.split("style-src")[1]
    )
    assert "http" not in policy and "*" not in policy


@pytest.mark.parametrize("text", ["<b>", "</style>", '"onload="x', "</script>", "{{ 1 }}", "&amp;"])
def test_every_text_is_a_text(text: str) -> None:
    plain = page(*content("word"), verdict=("word",) * 3, title="word")
    hostile = page(*content(text), verdict=(text,) * 3, title=text)
    # The tags are the same: of the text there is nothing but its escaped form.
    assert re.findall(r"<[/a-z!]", hostile) == re.findall(r"<[/a-z!]", plain)
    assert hostile.count(html.escape(text, quote=False).replace('"', "&#34;")) >= 15


def content(text: str) -> list[Any]:
    """Return an item of every kind that has a text everywhere."""
    return [
        figure(title=text, alt=text, caption=text, csv=text),
        Table("t", text, [Column(text)], [[Entry(text, 1.0, text)]], text, text),
        Words([text], [text]),
        Words([text], kind="code"),
        Facts(text, [(text, text)]),
    ]


def test_the_verdict_in_two_sentences_and_the_rest_below() -> None:
    text = page(verdict=("First 1.0 [0.9, 1.1] µs.", "Second.", "Third."))
    large, folded = text.split('<details class="more">')
    assert "Second." in large and "Third." not in large
    assert "Third." in folded
    assert '<span class="kept">1.0 [0.9, 1.1] µs</span>' in large
    assert '<details class="more">' not in page(verdict=("First.", "Second."))


def test_a_table_has_buttons_and_values() -> None:
    text = page(table([[Entry("a"), Entry("1,000", 1000.0)], [Entry("b"), Entry("-")]]))
    assert text.count('aria-sort="none"><button type="button">') == 2
    assert '<td class="numeric" data-value="1000.0">1,000</td>' in text
    assert '<td class="numeric">-</td>' in text


def test_a_drawing_says_what_it_is() -> None:
    assert 'role="img" aria-label="What"' in page(figure())
    own = figure(svg=SVG.replace("<svg", '<svg role="img" aria-label="Mine"'))
    assert page(own).count('aria-label="Mine"') == 1
    assert 'aria-label="What"' not in page(own)


def test_the_files_of_a_document(tmp_path: Path) -> None:
    document = Document(
        "Title",
        "Below",
        ["One."],
        [Section("part", "Part", [figure("a", png=b"\x89PNG"), figure("b"), table([], "c")])],
    )
    path = files.write(tmp_path / "new", "page.html", document)
    assert path == tmp_path / "new" / "page.html"
    found = sorted(str(file.relative_to(path.parent)) for file in path.parent.rglob("*.*"))
    plots = ["a.csv", "a.png", "a.svg", "b.csv", "b.svg", "c.csv"]
    assert found == ["page.html", *(f"plots/{name}" for name in plots)]
    svg = (path.parent / "plots" / "a.svg").read_text()
    assert "var(" not in svg and ElementTree.fromstring(svg).get("viewBox") == "0 0 100 50"
    before = path.read_bytes()
    assert files.write(tmp_path / "new", "page.html", document).read_bytes() == before


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match=r"cannot write .*file"):
        files.write(tmp_path / "file", "page.html", Document("t", "s", [], []))


# The verdict


def test_what_a_hop_costs(tmp_path: Path) -> None:
    path = run(tmp_path, ("direct", "socat", "nft", "xdp"), (1, 3), blocks=6)
    assert said(path) == [
        "Per hop, XDP adds 6.5 [6.5, 6.5] µs to the response time, nft 34.0 [34.0, 34.0] µs and "
        "socat 490 [490, 490] µs (624 bytes, 1 connection at a time; "
        "95 % intervals over 6 blocks).",
        "Through 3 hops, XDP's response time is 0.59 [0.59, 0.59] times that of nft and "
        "0.076 [0.076, 0.076] times that of socat (noise floor not known: no mode was measured "
        "twice here).",
    ]


def test_one_mode_one_hop_one_block(tmp_path: Path) -> None:
    assert said(run(tmp_path, ("xdp",), (1,), blocks=1)) == [
        "Through 1 hop, XDP answers in 107 µs (624 bytes, 1 connection at a time; from 1 sample, "
        "too few for an interval)."
    ]


def test_no_hop(tmp_path: Path) -> None:
    assert said(run(tmp_path, ("direct",), (1,), blocks=6)) == [
        "Without any hop, direct answers in 100 [100, 101] µs (624 bytes, 1 connection at a time; "
        "95 % interval over 6 samples)."
    ]


def test_a_run_that_was_interrupted(tmp_path: Path) -> None:
    first, second = said(run(tmp_path, ("nft", "xdp"), (1, 2), blocks=2, status="interrupted"))
    assert first.startswith("By 16 of 16 samples (the run was interrupted): Per hop, XDP adds ")
    assert first.endswith("from 2 blocks, too few for an interval).")
    assert second.startswith(
        "Through 2 hops, XDP's response time is 0.67 times that of nft (too few"
    )


def test_without_a_valid_sample(tmp_path: Path) -> None:
    cells = cross(("xdp",), ("native",), (1,), (624,), (1,), 20)
    path = write_run(
        tmp_path,
        cells,
        lambda cell, block: replace(sample(cell, block), invalid_reason="it <failed>"),
        blocks=2,
    )
    assert said(path) == [
        "There is no valid sample to go by: of 2 that were measured, 2 are invalid.",
        "The reason of 2 samples: it <failed>.",
    ]


def test_without_any_sample(tmp_path: Path) -> None:
    path = run(tmp_path, ("xdp",), (1,), blocks=0, status="running")
    assert said(path) == ["There is nothing to go by: the run is running and has no sample."]


def test_a_run_of_schema_1() -> None:
    assert said(SCHEMA_1) == [
        "Without any hop, direct answers in 3,750 µs (624 bytes, 1 connection at a time; "
        "from 2 samples, too few for an interval, by siege's clock of 10 ms)."
    ]


# The chain and its hosts


@pytest.mark.parametrize("number", [0, 1, 2, 5, 64])
def test_the_chain_is_drawn(tmp_path: Path, number: int) -> None:
    names = ["client", *(f"hop{at}" for at in range(1, number + 1)), "server"]
    each = [
        {"name": name, "data_ip": "198.18.0.1", "data_nic": "eth0", "port": 7} for name in names
    ]
    place = {"client": each[0], "hops": each[1:-1], "server": each[-1]}
    reader = read_run(run(tmp_path, ("xdp",), (max(1, number),), blocks=1, chain=place))
    counters = pd.DataFrame(
        [
            {"host": name, "role": "hop", "forwarder_flows_opened": 7.0, "forwarder_dropped_a": 2.0}
            for name in names
        ]
    )
    found = chain.diagram(reader, counters)
    assert found is not None
    root = ElementTree.fromstring(found.svg)
    boxes = [(float(box.get("x", 0)), float(box.get("y", 0))) for box in root.iter("rect")]
    assert len(boxes) == len(set(boxes)) == number + 2
    assert len(list(root.iter("path"))) == 2 * (number + 1)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert width <= 700 and all(x + 150 < width and y + 50 < height for x, y in boxes)
    # Hosts that follow each other are neighbours, also where a row ends.
    for (x, y), (other_x, other_y) in pairwise(boxes):
        assert (x == other_x) != (y == other_y)
    texts = [text.text or "" for text in root.iter("text")]
    assert texts.count("7 flows") == number and texts.count("2 dropped") == number
    assert len(found.csv.splitlines()) == number + 3


@pytest.mark.parametrize(
    "place", [{}, {"hops": 5}, {"client": "x", "hops": ["a", None], "server": []}]
)
def test_a_chain_that_says_nothing(tmp_path: Path, place: dict[str, Any]) -> None:
    reader = read_run(run(tmp_path, ("xdp",), (1,), blocks=1, chain=place))
    assert chain.diagram(reader, pd.DataFrame(columns=["sample", "host", "role"])) is None


def test_hosts_that_are_alike_are_told_once() -> None:
    alike = {"kernel": "6.1", "boot_id": "a", "nic": {"driver": "veth", "mtu": 1500}}
    facts = {"client": alike, "hop1": alike, "server": {**alike, "kernel": "6.2"}}
    found = hosts.hosts({"host_facts": facts})
    assert [each.title for each in found] == ["client and hop1", "server"]
    assert ("kernel", "6.2") in found[1].items and ("NIC", "veth, MTU 1500") in found[0].items
    assert found[0].items[0][0] == "machine"


@pytest.mark.parametrize("odd", [None, 7, "x", [], {"nic": [], "cpus": {}, "offloads": {"a": 1}}])
def test_facts_of_any_kind(odd: Any) -> None:
    values = ("nic", "egress_nic", "topology", "memory", "tools", "offloads", "sysctls", "cpus")
    found = hosts.hosts({"host_facts": {"a": odd, "b": dict.fromkeys(values, odd)}})
    assert all(isinstance(text, str) for each in found for item in each.items for text in item)


# The command


def test_the_command(tmp_path: Path) -> None:
    path = run(tmp_path, ("nft", "xdp"), (1, 2), blocks=2)
    done = CliRunner().invoke(cli, ["report", path.name, "--results", str(tmp_path)])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{path / 'report.html'}\n"
    text = (path / "report.html").read_text()
    assert len(re.findall(r"\bid=\"([^\"]+)\"", text)) == len(
        set(re.findall(r"\bid=\"([^\"]+)\"", text))
    )
    other = tmp_path / "other" / "folder"
    words = ["report", "latest", "--results", str(tmp_path), "--output", str(other)]
    done = CliRunner().invoke(cli, words)
    assert done.stdout == f"{other / 'report.html'}\n"
    assert (other / "report.html").read_text() == text


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("run.json", "{"),
        ("samples.csv", "a,b\n"),
        ("connections.parquet", "PAR1"),
    ],
)
def test_a_damaged_run(tmp_path: Path, file: str, text: str) -> None:
    path = run(tmp_path, ("xdp",), (1, 2), blocks=1)
    (path / file).write_text(text)
    done = CliRunner().invoke(cli, ["report", str(path)])
    assert isinstance(done.exception, BenchError)
    assert f"{file} is damaged" in done.exception.one_line()
    assert not (path / "report.html").exists()


def test_a_reproduction_has_a_page_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "reproduce.json").write_text("{}")
    done = CliRunner().invoke(cli, ["report", str(tmp_path)])
    assert isinstance(done.exception, BenchError)
    assert "reproduce.json is damaged" in done.exception.one_line()
