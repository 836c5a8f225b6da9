# SPDX-License-Identifier: Apache-2.0
"""Facts of a host: this machine's against its own tools, and recorded odd texts."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench import facts as controller
from bench.hop import ethtool, facts, facts_cpu, facts_nic, facts_read

SYSTEM_PYTHON = "/usr/bin/python3"


def nics() -> list[str]:
    """Return this machine's NICs."""
    return sorted(path.parent.name for path in Path("/sys/class/net").glob("*/mtu"))


def output(*argv: str) -> str:
    """Return what a program prints; skips where there is no such program."""
    program = shutil.which(argv[0], path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if program is None:
        pytest.skip(f"no {argv[0]}")
    return subprocess.run([program, *argv[1:]], capture_output=True, text=True, check=False).stdout


# This machine


@pytest.fixture(scope="module")
def this_host() -> dict[str, Any]:
    """The facts of this machine, by the program that hosts are sent, from an empty folder."""
    if not Path(SYSTEM_PYTHON).exists():
        pytest.skip(f"no {SYSTEM_PYTHON}")
    done = subprocess.run(
        [SYSTEM_PYTHON, "-B", "-"],
        input=controller.program([nics()[0], ""]),
        capture_output=True,
        text=True,
        cwd="/",
        check=True,
    )
    assert done.stderr == ""
    return dict(json.loads(done.stdout))


def test_this_host(this_host: dict[str, Any]) -> None:
    assert this_host["kernel"] == platform.release()
    assert this_host["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert this_host["cmdline"] == Path("/proc/cmdline").read_text().strip()
    assert this_host["cpus"] == os.cpu_count()
    assert this_host["clock_source"] in this_host["clock_sources"]
    assert this_host["memory"]["total_bytes"] > this_host["memory"]["available_bytes"] > 0
    assert this_host["swap"]["total_bytes"] >= this_host["swap"]["used_bytes"] >= 0
    assert this_host["tcp_time_wait"] >= 0
    assert this_host["nic"]["mtu"] > 0
    assert this_host["egress_nic"] is None
    timestamps = Path("/proc/sys/net/ipv4/tcp_timestamps").read_text().strip()
    assert this_host["sysctls"]["net.ipv4.tcp_timestamps"] == timestamps
    assert (
        this_host["sysctls"]["net.ipv4.ip_local_port_range"].split()
        == (this_host["ip_local_port_range"])
    )


def test_what_others_read_is_there(this_host: dict[str, Any]) -> None:
    """A fact that cannot be had is null; none is left out."""
    for key in (
        *("os", "cpu", "topology", "governor", "turbo", "scaling_driver", "virtualisation"),
        *("isolated_cpus", "load_1min", "time", "uid", "python", "modules", "libraries"),
        *("kernel_headers", "bpf", "nft_tables", "send_redirects_all", "forwarding_ipv6_all"),
    ):
        assert key in this_host, key
    for key in (
        *("driver", "driver_version", "firmware", "bus", "speed_mbps", "channels", "rings"),
        *("coalescing", "offloads", "mtu", "gro_max_size", "gso_max_size", "qdiscs", "irqs"),
        *("rps_cpus", "xps_cpus", "rps_flow_cnt", "xdp_mode", "xdp_program", "tc_filters"),
        *("networks", "pause", "eee", "aspm", "dma", "virtual_functions", "arp_ignore"),
    ):
        assert key in this_host["nic"], key
    assert {"llvm", "clang", "libbpf", "bcc"} <= this_host["libraries"].keys()


@pytest.mark.parametrize("tool", ["siege", "socat", "nft", "nginx", "ethtool", "ip", "unshare"])
def test_versions_of_this_host(this_host: dict[str, Any], tool: str) -> None:
    found = this_host["tools"][tool]
    installed = shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    assert (found is None) is (installed is None)
    assert found is None or re.match(r"\d+\.\d", found)


def test_what_bcc_is_linked_with(this_host: dict[str, Any]) -> None:
    libraries = list(Path("/usr/lib").glob("*/libbcc.so.0"))
    if not libraries:
        assert set(this_host["libraries"].values()) <= {None, this_host["libraries"]["nftables"]}
        pytest.skip("no BCC")
    needed = output("readelf", "-d", str(libraries[0]))
    for key in ("llvm", "libbpf"):
        found = this_host["libraries"][key]
        assert (found is not None) is (f"[lib{key.removeprefix('lib')}" in needed.lower())


@pytest.mark.parametrize("nic", nics())
def test_features_are_those_of_ethtool(nic: str) -> None:
    printed = output("ethtool", "-k", nic)
    theirs = dict(re.findall(r"^\s*([\w-]+): (on|off)", printed, re.MULTILINE))
    if not theirs:
        pytest.skip("ethtool says nothing")
    ours = facts_nic._offloads(ethtool.features(nic))
    both = {name: state for name, state in ours.items() if name in theirs}
    assert len(both) > 10
    assert both == {name: theirs[name] for name in both}


@pytest.mark.parametrize("nic", nics())
def test_settings_are_those_of_ethtool(nic: str) -> None:
    driver = dict(re.findall(r"^([\w-]+): (\S.*)$", output("ethtool", "-i", nic), re.MULTILINE))
    ours = ethtool.driver(nic)
    for name, key in (
        ("driver", "driver"),
        ("version", "driver_version"),
        ("firmware-version", "firmware"),
        ("bus-info", "bus"),
    ):
        assert ours[key] == driver.get(name), key
    rings = re.findall(r"^(RX|TX):\s*(\d+)$", output("ethtool", "-g", nic), re.MULTILINE)
    if len(rings) == 4:
        most, now = dict(rings[:2]), dict(rings[2:])
        assert ethtool.rings(nic) == {
            "rx": int(now["RX"]),
            "rx_max": int(most["RX"]),
            "tx": int(now["TX"]),
            "tx_max": int(most["TX"]),
        }
    combined = re.findall(r"^Combined:\s*(\d+)", output("ethtool", "-l", nic), re.MULTILINE)
    found = ethtool.channels(nic)
    if len(combined) == 2:
        assert (found["combined_max"], found["combined"]) == tuple(map(int, combined))
    else:
        assert found["combined"] is None
    eee = re.search(r"^\s*EEE status: (.*)$", output("ethtool", "--show-eee", nic), re.MULTILINE)
    word = eee[1] if eee else "not supported"
    assert ethtool.eee(nic) == {
        "not supported": {"enabled": None, "active": None},
        "disabled": {"enabled": 0, "active": 0},
        "enabled - inactive": {"enabled": 1, "active": 0},
        "enabled - active": {"enabled": 1, "active": 1},
    }.get(word)
    usecs = re.search(r"^rx-usecs:\s*(\d+)", output("ethtool", "-c", nic), re.MULTILINE)
    assert ethtool.coalescing(nic)["rx_usecs"] == (int(usecs[1]) if usecs else None)


@pytest.mark.parametrize("name", ["", "hb-none", "a-name-that-is-much-too-long"])
def test_a_nic_that_is_not_there(name: str) -> None:
    assert set(ethtool.driver(name).values()) == {None}
    assert set(ethtool.channels(name).values()) == {None}
    assert set(ethtool.rings(name).values()) == {None}
    assert set(ethtool.coalescing(name).values()) == {None}
    assert set(ethtool.pause(name).values()) == {None}
    assert set(ethtool.eee(name).values()) == {None}
    assert ethtool.features(name) == {} == ethtool.private_flags(name)
    assert facts_nic._tcx(None, 46) is None


def test_energy_efficient_ethernet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As struct ethtool_eee lays it out, which no NIC of this machine may fill in."""
    asked = []

    def answer(nic: str, request: bytes) -> bytes:
        asked.append(struct.unpack("=10I", request))
        return struct.pack("=10I", 0x44, 0x28, 0x28, 0x20, 1, 1, 0, 17, 0, 0)

    monkeypatch.setattr(ethtool, "_ask", answer)
    assert ethtool.eee("eth0") == {"enabled": 1, "active": 1}
    assert asked == [(0x44, *[0] * 9)]


def test_networks_of_this_machine() -> None:
    """Loopback's are known."""
    assert "127.0.0.1/8" in (facts_nic.collect("lo") or {})["networks"]


def test_the_slot_of_a_nic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How its link sleeps, who translates its addresses: as sysfs has it for a PCI device."""
    (tmp_path / "net" / "eth0").mkdir(parents=True)
    pci = tmp_path / "0000:02:00.0"
    (tmp_path / "net" / "eth0" / "device").symlink_to(pci)
    for name, text in (
        *(("link/l0s_aspm", "0"), ("link/l1_aspm", "1"), ("link/l1_1_aspm", "1")),
        *(("link/clkpm", "1"), ("iommu_group/type", "DMA-FQ"), ("sriov_numvfs", "4")),
    ):
        (pci / name).parent.mkdir(parents=True, exist_ok=True)
        (pci / name).write_text(f"{text}\n")
    monkeypatch.setattr(facts_nic, "_NICS", str(tmp_path / "net"))
    found = facts_nic.collect("eth0") or {}
    assert found["aspm"] == ["l1", "l1_1"]
    assert (found["dma"], found["virtual_functions"]) == ("DMA-FQ", 4)
    assert facts_nic._aspm("eth1") is None


def test_names_never_become_code() -> None:
    """A NIC's name is data in the program, whatever it consists of."""
    name = "\"']);x=1#{nics}\\"
    done = subprocess.run(
        [SYSTEM_PYTHON, "-B", "-"],
        input=controller.program([name, ""]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nic"] is None


# Odd texts


@pytest.mark.parametrize(
    ("tool", "text", "version"),
    [
        ("nginx", "nginx version: nginx/1.22.1\n", "1.22.1"),
        ("nft", "nftables v1.0.6 (Lester Gooch #5)\n", "1.0.6"),
        ("ip", "ip utility, iproute2-6.1.0, libbpf 1.1.0\n", "6.1.0"),
        ("clang", "Debian clang version 14.0.6\nTarget: x86_64-pc-linux-gnu\n", "14.0.6"),
        ("siege", "HOME: 1.5 is missing\nSIEGE 4.0.7\n", "4.0.7"),
        ("ethtool", "ethtool version 6.1\n", "6.1"),
        ("socat", "no number", None),
        ("socat", "", None),
        ("socat", None, None),
    ],
)
def test_versions(tool: str, text: str | None, version: str | None) -> None:
    assert facts._version(tool, text) == version


@pytest.mark.parametrize(
    ("no_turbo", "boost", "expected"),
    [
        ("0", None, True),
        ("1", None, False),
        ("1", "1", False),
        (None, "1", True),
        (None, "0", False),
        (None, None, None),
        ("?", "", None),
    ],
)
def test_turbo(no_turbo: str | None, boost: str | None, expected: bool | None) -> None:
    assert facts_cpu._turbo(no_turbo, boost) is expected


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("table ip nat\ntable inet filter\n", ["inet filter", "ip nat"]),
        ("", []),
        ("Operation not permitted (you must be root)\nnetlink: Error: cache\n", None),
        (None, None),
    ],
)
def test_tables_of_nft(text: str | None, tables: list[str] | None) -> None:
    assert facts._nft_tables(text) == tables


@pytest.mark.parametrize(
    ("text", "link", "expected"),
    [
        ('[{"kind":"mq","handle":"0:","root":true}]', {}, [{"kind": "mq", "handle": "0:"}]),
        (
            json.dumps(
                [{"kind": "mq", "handle": "8001:"}] + 64 * [{"kind": "fq_codel", "handle": "0:"}]
            ),
            {},
            [{"kind": "mq", "handle": "8001:"}, {"kind": "fq_codel", "handle": "0:"}],
        ),
        # iproute2 of an age that did not finish what it began.
        ('[{"kind":"mq"', {}, []),
        ("Error: Exclusivity flag on", {}, []),
        ("{}", {}, []),
        ("[1]", {}, []),
        (None, {"qdisc": "fq"}, [{"kind": "fq", "handle": None}]),
        (None, {}, None),
    ],
)
def test_qdiscs(text: str | None, link: dict[str, Any], expected: Any) -> None:
    assert facts_nic._qdiscs(text, link) == expected


@pytest.mark.parametrize(
    ("xdp", "expected"),
    [
        (None, ("", None, None)),
        ({}, ("", None, None)),
        ({"mode": 1, "prog": {"id": 3, "name": "f"}}, ("native", 3, "f")),
        ({"mode": 2, "prog": {"id": 3}}, ("generic", 3, None)),
        ({"mode": 3, "prog": {"id": 3}}, ("offload", 3, None)),
        (
            {"mode": 4, "attached": [{"mode": 1, "prog": {"id": 5, "name": "g"}}, {"mode": 2}]},
            ("several", 5, "g"),
        ),
        ({"mode": 4}, ("several", None, None)),
        ({"mode": 9}, ("", None, None)),
    ],
)
def test_xdp(xdp: Any, expected: tuple[str, int | None, str | None]) -> None:
    found = facts_nic._xdp({"xdp": xdp})
    assert (found["xdp_mode"], found["xdp_program"], found["xdp_program_name"]) == expected


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"tx-tcp-segmentation": False, "tx-tcp6-segmentation": True}, "on"),
        ({"tx-tcp-segmentation": False, "tx-udp-segmentation": True}, "off"),
        ({"tx-tcp-ecn-segmentation": True}, "on"),
        ({}, None),
    ],
)
def test_one_name_for_several_features(features: dict[str, bool], expected: str | None) -> None:
    assert facts_nic._offloads(features)["tcp-segmentation-offload"] == expected


def test_interrupts_of_a_nic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a virtio NIC belong to the device above it."""
    pci = tmp_path / "devices" / "0000:00:03.0"
    for irq, effective in (("9", "0"), ("10", None)):
        (pci / "msi_irqs").mkdir(parents=True, exist_ok=True)
        (pci / "msi_irqs" / irq).write_text("msix\n")
        (tmp_path / "irq" / irq).mkdir(parents=True)
        (tmp_path / "irq" / irq / "smp_affinity_list").write_text("0-3\n")
        if effective:
            (tmp_path / "irq" / irq / "effective_affinity_list").write_text(f"{effective}\n")
    (pci / "virtio2").mkdir()
    (pci / "current_link_speed").write_text("8.0 GT/s PCIe\n")
    for name, device in (("eth0", pci / "virtio2"), ("eth1", pci)):
        (tmp_path / "net" / name).mkdir(parents=True)
        (tmp_path / "net" / name / "device").symlink_to(device)
    (tmp_path / "net" / "veth0").mkdir()
    monkeypatch.setattr(facts_nic, "_NICS", str(tmp_path / "net"))
    monkeypatch.setattr(facts_nic, "_IRQS", str(tmp_path / "irq"))
    expected = {
        "9": {"affinity": "0-3", "effective": "0"},
        "10": {"affinity": "0-3", "effective": None},
    }
    assert facts_nic._irqs("eth0") == expected == facts_nic._irqs("eth1")
    assert list(facts_nic._irqs("eth0")) == ["9", "10"]
    assert facts_nic._irqs("veth0") == {}
    slot = {"speed": "8.0 GT/s PCIe", "width": None, "max_speed": None, "max_width": None}
    assert facts_nic._pcie("eth1") == slot
    assert facts_nic._pcie("veth0") is None
    # Without MSI there is one line.
    shutil.rmtree(pci / "msi_irqs")
    (pci / "irq").write_text("9\n")
    assert facts_nic._irqs("eth1") == {"9": expected["9"]}
    (pci / "irq").write_text("0\n")
    assert facts_nic._irqs("eth1") == {}


def test_cpus_that_disagree(tmp_path: Path) -> None:
    for number, governor in enumerate(["performance", "powersave", "performance", ""]):
        (tmp_path / f"cpu{number}").mkdir()
        (tmp_path / f"cpu{number}" / "governor").write_text(f"{governor}\n")
    assert facts_cpu._each(f"{tmp_path}/cpu[0-9]/governor") == "performance, powersave"
    assert facts_cpu._each(f"{tmp_path}/cpu[02]/governor") == "performance"
    assert facts_cpu._each(f"{tmp_path}/none/governor") is None


def test_files_that_are_odd(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "number").write_text("-1\n")
    assert facts_read.text(str(tmp_path / "binary")) is None
    assert facts_read.text(str(tmp_path)) is None
    assert facts_read.number(str(tmp_path / "number")) == -1
    assert facts_read.number(str(tmp_path / "binary")) is None
    assert facts._needed(str(tmp_path / "number"), rb"libLLVM") is None
    (tmp_path / "empty").write_bytes(b"")
    assert facts._needed(str(tmp_path / "empty"), rb"libLLVM") is None
    (tmp_path / "elf").write_bytes(b"\x7fELF\0libc.so.6\0libLLVM-14.so.1\0libLLVM-15.so.1\0")
    assert facts._needed(str(tmp_path / "elf"), rb"libLLVM") == "libLLVM-14.so.1"
    assert facts._needed(str(tmp_path / "elf"), rb"libbpf") is None


def test_queues_in_their_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        (tmp_path / f"rx-{number}").write_text(str(number))
    assert list(facts_read.texts(f"{tmp_path}/rx-*").values()) == ["1", "2", "10"]
