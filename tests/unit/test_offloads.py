# SPDX-License-Identifier: Apache-2.0
"""What agents turn off, what they write down before, and what is made of damaged records."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.hop import offload_records as records
from bench.hop import offloads
from bench.hop.errors import HopError
from bench.hop.offload_records import Feature, Namespace, Record

FIXED_OFF, FIXED_ON = Feature(False, False, False), Feature(False, True, True)
ON, OFF, ASKED = Feature(True, True, True), Feature(True, False, False), Feature(True, True, False)

# Shortened; a veth with `tx off`, one whose peer runs XDP, and a NIC with firmware of its own mind.
ETHTOOL = """\
Features for eth0:
rx-checksumming: on
tcp-segmentation-offload: on
\ttx-tcp-segmentation: off [requested on]
\ttx-tcp6-segmentation: on
\ttx-tcp-ecn-segmentation: off [fixed]
generic-segmentation-offload: on
generic-receive-offload: on [requested off]
large-receive-offload: on [fixed]
rx-gro-list: off
rx-udp-gro-forwarding: off
"""


def test_features_are_read_as_ethtool_prints_them() -> None:
    assert records.parse_features(ETHTOOL) == {
        "tx-tcp-segmentation": ASKED,
        "tx-tcp6-segmentation": ON,
        "tx-tcp-ecn-segmentation": FIXED_OFF,
        "generic-segmentation-offload": ON,
        "generic-receive-offload": Feature(True, False, True),
        "large-receive-offload": FIXED_ON,
        "rx-gro-list": OFF,
    }
    assert records.parse_features("netlink error: No such device\n") == {}


def test_settings_are_what_is_asked_for() -> None:
    features = {"tx-tcp-segmentation": ASKED, "rx-gro-list": OFF}
    link = {"ifname": "eth0", "mtu": 1500, "gro_max_size": 65536}
    assert records.settings(features, link) == {
        "tx-tcp-segmentation": 1,
        "rx-gro-list": 0,
        "gro_max_size": 65536,
    }


@pytest.mark.parametrize(
    ("feature", "veth", "off"),
    [
        (ON, False, True),
        (OFF, False, False),
        (ASKED, False, True),  # what it needs may come back
        (FIXED_OFF, False, False),
        (FIXED_OFF, True, False),
        (ON, True, False),
        (FIXED_ON, True, False),
    ],
)
def test_what_is_turned_off(feature: Feature, veth: bool, off: bool) -> None:
    name = "generic-receive-offload"
    assert offloads.to_turn_off("eth0", {name: feature}, veth) == ({name: 0} if off else {})
    # On a veth only GRO is an exception.
    if feature != FIXED_ON:
        found = offloads.to_turn_off("eth0", {"rx-gro-list": feature}, veth)
        assert found == ({"rx-gro-list": 0} if feature.changeable and feature.wanted else {})


def test_what_cannot_be_turned_off_is_refused() -> None:
    with pytest.raises(HopError) as caught:
        offloads.to_turn_off("ens5", {"large-receive-offload": FIXED_ON}, False)
    assert caught.value.cause == "large-receive-offload of ens5 is on and cannot be turned off"
    assert "--offloads native" in caught.value.remedy


def test_a_veth_merges_nothing() -> None:
    link = {"gro_max_size": 65536, "gro_ipv4_max_size": 65536, "mtu": 1500}
    assert offloads.to_bound("eth0", link) == {"gro_max_size": 1, "gro_ipv4_max_size": 1}
    assert offloads.to_bound("eth0", {"gro_max_size": 600}) == {"gro_max_size": 1}
    with pytest.raises(HopError, match=r"GRO of eth0 cannot be bounded"):
        offloads.to_bound("eth0", {"mtu": 1500})


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        # Nothing recorded: what is now was before us. What is so already is not ours.
        ({"gso": 1, "gro": 0}, {}, {"gso": (1, 0)}),
        # A crashed agent's: its word on the time before stays, whatever is now.
        ({"gso": 0, "gro": 0}, {"gso": (1, 0)}, {"gso": (1, 0)}),
        # It was killed between writing and changing.
        ({"gso": 1, "gro": 0}, {"gso": (1, 0)}, {"gso": (1, 0)}),
        # Somebody else changed it since.
        ({"gso": 1, "gro": 0, "size": 9}, {"size": (65536, 1)}, {"gso": (1, 0)}),
        # It is no longer among what is wanted, and still to be put back.
        ({"gso": 0, "gro": 0, "size": 1}, {"size": (65536, 1)}, {"size": (65536, 1)}),
        ({"gso": 0, "gro": 0}, {"gone": (1, 0)}, {}),
    ],
)
def test_what_is_recorded(
    now: dict[str, int], before: dict[str, tuple[int, int]], expected: dict[str, tuple[int, int]]
) -> None:
    assert offloads.changes(now, {"gso": 0, "gro": 0}, before) == expected


# Records


def record(**changes: Any) -> Record:
    """Return a record of this host's loopback, which nothing was changed of."""
    given = {
        "namespace": records.namespace(),
        "ifindex": socket.if_nametoindex("lo"),
        "nic": "lo",
        "changes": {"gro_max_size": (65536, 1), "rx-gro-list": (1, 0)},
    }
    return Record(**{**given, **changes})


def names_in(folder: Path) -> list[str]:
    """Return the names of a folder's files."""
    return sorted(each.name for each in folder.iterdir())


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    written = record()
    offloads.write(str(folder), written)
    (file,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    here = written.namespace
    assert file.name == f"{here.inode}.{written.ifindex}.json"
    assert records.read(str(file), here, written.ifindex) == written
    assert records.left(str(folder))
    # Written anew, it is replaced.
    offloads.write(str(folder), record(changes={}))
    assert records.read(str(file), here, written.ifindex) == record(changes={})


@pytest.mark.parametrize("other", ["boot_id", "inode", "cookie", "ifindex"])
def test_a_record_of_another_host_says_nothing(tmp_path: Path, other: str) -> None:
    """A namespace that has gone, whose inode is used again: the cookie tells."""
    here, index = records.namespace(), 7
    there = {**vars(here), other: "another" if other == "boot_id" else 1}
    index_there = there.pop("ifindex", index)
    path = tmp_path / "record"
    path.write_text(offloads.encode(record(namespace=Namespace(**there), ifindex=index_there)))
    assert records.read(str(path), here, index) is None


def _without(key: str) -> str:
    found = json.loads(offloads.encode(record()))
    del found[key]
    return json.dumps(found)


def _with(**changes: Any) -> str:
    return json.dumps({**json.loads(offloads.encode(record())), **changes})


HOSTILE = {
    "nothing": "",
    "no JSON": "{",
    "no text": "\0\xff",
    "deep": "[" * 60000,
    "a list": "[]",
    "a number": "1",
    "null": "null",
    "no changes": _without("changes"),
    "no ifindex": _without("ifindex"),
    "no boot": _without("boot_id"),
    "an ifindex of text": _with(ifindex="1"),
    "a negative ifindex": _with(ifindex=-1),
    "a fraction": _with(ifindex=1.0),
    "changes in a list": _with(changes=["rx-gro-list"]),
    "a change of text": _with(changes={"rx-gro-list": "on"}),
    "half a change": _with(changes={"rx-gro-list": {"before": 1}}),
    "true": _with(changes={"rx-gro-list": {"before": True, "set": 0}}),
    "two": _with(changes={"rx-gro-list": {"before": 2, "set": 0}}),
    "an option": _with(changes={"gro_max_size": {"before": "1 master br0", "set": 1}}),
    "too large": _with(changes={"gro_max_size": {"before": 1 << 32, "set": 1}}),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_record_is_removed(tmp_path: Path, text: str) -> None:
    assert records.decode(text) is None
    here, index = records.namespace(), socket.if_nametoindex("lo")
    path = Path(records.path_of(str(tmp_path), here.inode, index))
    path.write_text(text, errors="replace")
    before = _settings("lo")
    (said,) = records.put_back(str(tmp_path))
    assert said.startswith(f"record of offloads {path.name}")
    assert not path.exists()
    assert _settings("lo") == before


def _settings(nic: str) -> dict[str, int]:
    return records.settings(records.features(nic), records.link(nic))


def test_only_what_may_be_changed_is_put_back(tmp_path: Path) -> None:
    """Settings by other names, and other values than were given, are left alone."""
    before = _settings("lo")
    made = {"rx-checksumming": (0, 1), "; reboot": (0, 1), "gro_max_size": (7, 8)}
    offloads.write(str(tmp_path), record(changes=made, nic="../../etc/passwd"))
    assert records.put_back(str(tmp_path)) == []
    assert not records.left(str(tmp_path))
    assert _settings("lo") == before


def test_a_nic_that_has_gone(tmp_path: Path) -> None:
    offloads.write(str(tmp_path), record(ifindex=987654))
    (said,) = records.put_back(str(tmp_path))
    assert "says nothing of a NIC here" in said


def test_other_files_are_nobodys(tmp_path: Path) -> None:
    names = ("readme", "1.json", "1.2.json.bak", "..1.2.json", "1.2.txt", "٣.2.json", "-1.2.json")
    for name in names:
        (tmp_path / name).write_text("{}")
    assert records.put_back(str(tmp_path)) == []
    assert records.remove_stale(str(tmp_path)) == []
    assert names_in(tmp_path) == sorted(names)


def test_records_of_namespaces_that_have_gone_go_too(tmp_path: Path) -> None:
    folder = tmp_path / "records"
    here = records.namespace()
    offloads.write(str(folder), record())
    for name in ("12.2.json", "12.2.new"):
        (folder / name).write_text("{}")
    assert len(records.remove_stale(str(folder))) == 2
    assert names_in(folder) == [f"{here.inode}.{record().ifindex}.json"]
    # What another namespace left is none of this one's business.
    (folder / "12.2.json").write_text("{}")
    records.put_back(str(folder))
    assert names_in(folder) == ["12.2.json"]
    records.remove_stale(str(folder))
    assert not folder.exists()
    assert records.put_back(str(folder)) + records.remove_stale(str(folder)) == []


def test_one_at_a_time(tmp_path: Path) -> None:
    held = records.lock()
    assert held is not None
    try:
        assert records.lock(0.05) is None
        waiting = offloads.Offloads(("lo",), str(tmp_path))
        with pytest.raises(HopError, match="another agent"):
            waiting.use("native")
    finally:
        held.close()
    assert waiting.use("native") == {"lo": offloads._facts("lo", {})}
    assert records.lock(0.05) is None
    waiting.restore()
    waiting.restore()
    again = records.lock(0.05)
    assert again is not None
    again.close()


def test_it_runs_without_the_package(tmp_path: Path) -> None:
    """As `bench clean` runs it: sent to an interpreter that knows nothing else of ours."""
    offloads.write(str(tmp_path / "records"), record(ifindex=987654))
    done = subprocess.run(
        ["/usr/bin/env", "-i", "python3", "-B", "-", str(tmp_path / "records")],
        input=Path(records.__file__).read_text(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    (said,) = json.loads(done.stdout)
    assert "987654" in said
    assert names_in(tmp_path) == []
