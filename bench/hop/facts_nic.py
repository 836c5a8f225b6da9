# SPDX-License-Identifier: Apache-2.0
"""What a NIC is and how it is set: driver, queues, offloads, interrupts, programs on its way."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import struct
from typing import Any

from . import ethtool
from . import facts_read as read

_NICS, _IRQS = "/sys/class/net", "/proc/irq"
# ethtool's names for several features of the kernel at once (off_flag_def in its common.c).
_OFFLOADS = {
    "rx-checksumming": r"rx-checksum",
    "tx-checksumming": r"tx-checksum-.*",
    "scatter-gather": r"tx-scatter-gather.*",
    "tcp-segmentation-offload": r"tx-tcp.*-segmentation",
    "generic-segmentation-offload": r"tx-generic-segmentation",
    "generic-receive-offload": r"rx-gro",
    "large-receive-offload": r"rx-lro",
    "rx-vlan-offload": r"rx-vlan-hw-parse",
    "tx-vlan-offload": r"tx-vlan-hw-insert",
    "receive-hashing": r"rx-hashing",
    "ntuple-filters": r"rx-ntuple-filter",
} | {
    name: re.escape(name)
    for name in (
        *("rx-gro-hw", "rx-gro-list", "rx-udp-gro-forwarding", "tx-udp-segmentation"),
        *("tx-gso-partial", "tx-gso-list", "tx-nocache-copy", "hw-tc-offload"),
    )
}
_XDP_MODES = {1: "native", 2: "generic", 3: "offload", 4: "several"}
# The kernel's own settings of a link, by the name that `ip` has for them.
_SIZES = ("gro_max_size", "gso_max_size", "gso_max_segs")
_HOOKS = ("ingress", "egress")
# include/uapi/linux/bpf.h, and the system call's number.
_BPF_PROG_QUERY, _TCX = 16, {"ingress": 46, "egress": 47}
_SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_QUERY = struct.Struct("=IIIIQIIQQQQ")
_MOST_PROGRAMS = 64


def collect(name: str) -> dict[str, Any] | None:
    """Return the facts of a NIC, None where there is none of that name."""
    base = f"{_NICS}/{name}"
    if not name or not os.path.isdir(base):
        return None
    link = _link(read.said(["ip", "-json", "-details", "address", "show", "dev", name]))
    vlan_id, lower = _vlan(link)
    qdiscs = _qdiscs(read.said(["tc", "-json", "qdisc", "show", "dev", name]), link)
    return {
        **ethtool.driver(name),
        "numa_node": read.number(f"{base}/device/numa_node"),
        "up": (read.text(f"{base}/operstate") or "") in ("up", "unknown"),
        "speed_mbps": _positive(read.number(f"{base}/speed")),
        "duplex": read.text(f"{base}/duplex"),
        "kind": (link.get("linkinfo") or {}).get("info_kind"),
        "master": link.get("master"),
        "wireless": os.path.isdir(f"{base}/wireless") or os.path.isdir(f"{base}/phy80211"),
        "pcie": _pcie(name),
        "aspm": _aspm(name),
        "dma": read.text(f"{_device(name)}/iommu_group/type"),
        "virtual_functions": read.number(f"{_device(name)}/sriov_numvfs"),
        "mtu": link.get("mtu"),
        "mac": link.get("address"),
        "addresses": [each["local"] for each in link.get("addr_info", []) if "local" in each],
        "networks": _networks(link),
        "rx_queues": len(read.texts(f"{base}/queues/rx-*")),
        "tx_queues": len(read.texts(f"{base}/queues/tx-*")),
        "channels": ethtool.channels(name),
        "rings": ethtool.rings(name),
        "coalescing": ethtool.coalescing(name),
        "pause": ethtool.pause(name),
        "eee": ethtool.eee(name),
        "offloads": _offloads(ethtool.features(name)),
        "private_flags": ethtool.private_flags(name),
        **{key: link.get(key) for key in _SIZES},
        "tx_queue_len": read.number(f"{base}/tx_queue_len"),
        "threaded_napi": read.text(f"{base}/threaded"),
        "gro_flush_timeout": read.number(f"{base}/gro_flush_timeout"),
        "napi_defer_hard_irqs": read.number(f"{base}/napi_defer_hard_irqs"),
        "irqs": _irqs(name),
        "rps_cpus": list(read.texts(f"{base}/queues/rx-*/rps_cpus").values()),
        "rps_flow_cnt": list(read.texts(f"{base}/queues/rx-*/rps_flow_cnt").values()),
        "xps_cpus": list(read.texts(f"{base}/queues/tx-*/xps_cpus").values()),
        "qdiscs": qdiscs,
        "tc_filters": _filters(name, qdiscs),
        "tcx": {hook: _tcx(link.get("ifindex"), kind) for hook, kind in _TCX.items()},
        **_xdp(link),
        **_settings(name),
        "vlan_id": vlan_id,
        "lower": lower,
        # XDP sees a tagged frame on the NIC below: what matters to it is asked there.
        "lower_nic": collect(lower) if lower else None,
    }


def _link(text: str | None) -> dict[str, Any]:
    """Return what `ip -json -details address show dev NIC` says of the NIC."""
    return next(iter(_objects(text)), {})


def _objects(text: str | None) -> list[dict[str, Any]]:
    """Return the objects of a list in JSON; what iproute2 prints is not always right."""
    try:
        found = json.loads(text or "[]")
    except ValueError:
        return []
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _networks(link: dict[str, Any]) -> list[str]:
    """Return the NIC's addresses with the length of their prefix: `198.18.0.5/24`."""
    found = link.get("addr_info", [])
    return [
        f"{each['local']}/{each['prefixlen']}"
        for each in found
        if "local" in each and "prefixlen" in each
    ]


def _vlan(link: dict[str, Any]) -> tuple[int | None, str | None]:
    """Return the tag of a VLAN device and the NIC below it."""
    info = link.get("linkinfo") or {}
    if info.get("info_kind") != "vlan":
        return None, None
    return (info.get("info_data") or {}).get("id"), link.get("link")


def _xdp(link: dict[str, Any]) -> dict[str, Any]:
    """Return what runs on the NIC: the mode is empty for nothing, `several` for two at once."""
    xdp = link.get("xdp") or {}
    attached = (xdp.get("attached") or [{}])[0].get("prog") or {}
    program = xdp.get("prog") or attached
    return {
        "xdp_mode": _XDP_MODES.get(int(xdp.get("mode") or 0), ""),
        "xdp_program": program.get("id"),
        "xdp_program_name": program.get("name"),
    }


def _settings(name: str) -> dict[str, str | None]:
    """Return the NIC's own sysctls."""
    conf, conf6 = (f"/proc/sys/net/{ip}/conf/{name}" for ip in ("ipv4", "ipv6"))
    return {
        "forwarding": read.text(f"{conf}/forwarding"),
        "forwarding_ipv6": read.text(f"{conf6}/forwarding"),
        "force_forwarding_ipv6": read.text(f"{conf6}/force_forwarding"),
        "accept_local": read.text(f"{conf}/accept_local"),
        "send_redirects": read.text(f"{conf}/send_redirects"),
        "rp_filter": read.text(f"{conf}/rp_filter"),
        "arp_ignore": read.text(f"{conf}/arp_ignore"),
    }


def _offloads(features: dict[str, bool]) -> dict[str, str | None]:
    """Return {ethtool's name: "on" | "off"}, None for what this kernel does not know.

    One that stands for several is on when one of them is, as ethtool has it.
    """
    found: dict[str, str | None] = {}
    for name, pattern in _OFFLOADS.items():
        states = [active for each, active in features.items() if re.fullmatch(pattern, each)]
        found[name] = ("on" if any(states) else "off") if states else None
    return found


def _positive(value: int | None) -> int | None:
    # A NIC that knows no speed says -1.
    return value if value is not None and value > 0 else None


def _device(name: str) -> str:
    """Return the folder of the NIC's device on its bus: a virtio NIC's is that of its parent."""
    path = os.path.realpath(f"{_NICS}/{name}/device")
    return os.path.dirname(path) if os.path.basename(path).startswith("virtio") else path


def _pcie(name: str) -> dict[str, str | None] | None:
    """Return speed and width of the NIC's slot, and its most, None where it has none."""
    found = {
        prefix + key: read.text(f"{_device(name)}/{file}_link_{key}")
        for prefix, file in (("", "current"), ("max_", "max"))
        for key in ("speed", "width")
    }
    return found if any(found.values()) else None


def _aspm(name: str) -> list[str] | None:
    """Return the states in which the NIC's PCIe link may sleep, None where it does not say."""
    # Documentation/ABI/testing/sysfs-bus-pci, Linux 5.5: l0s_aspm, l1_aspm, l1_1_aspm and so on.
    found = read.texts(f"{_device(name)}/link/*_aspm")
    if not found:
        return None
    return [os.path.basename(path)[: -len("_aspm")] for path in found if found[path] == "1"]


def _irqs(name: str) -> dict[str, dict[str, str | None]]:
    """Return {interrupt: the CPUs it may go to, and goes to}, nothing for a NIC without any."""
    device = _device(name)
    own = read.text(f"{device}/irq")
    numbers = [os.path.basename(path) for path in read.texts(f"{device}/msi_irqs/*")]
    if not numbers and own not in (None, "0"):
        numbers = [str(own)]
    return {
        irq: {
            "affinity": read.text(f"{_IRQS}/{irq}/smp_affinity_list"),
            "effective": read.text(f"{_IRQS}/{irq}/effective_affinity_list"),
        }
        for irq in numbers
    }


def _qdiscs(text: str | None, link: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return kind and handle of each queueing discipline once; without tc, the link's own kind."""
    if text is None:
        kind = link.get("qdisc")
        return [{"kind": kind, "handle": None}] if kind else None
    found = []
    for each in _objects(text):
        qdisc = {"kind": each.get("kind"), "handle": each.get("handle")}
        # Those below mq are many, and all the same.
        if qdisc not in found:
            found.append(qdisc)
    return found


def _filters(name: str, qdiscs: list[dict[str, Any]] | None) -> dict[str, list[str]]:
    """Return the kinds of tc's filters at the hooks that clsact and ingress give a NIC."""
    if not {"clsact", "ingress"} & {each["kind"] for each in qdiscs or []}:
        return {}
    found = {}
    for hook in _HOOKS:
        said = read.said(["tc", "-json", "filter", "show", "dev", name, hook])
        kinds = sorted({str(each["kind"]) for each in _objects(said) if "kind" in each})
        if kinds:
            found[hook] = kinds
    return found


def _tcx(ifindex: int | None, hook: int) -> list[int] | None:
    """Return the ids of BPF programs at a hook of tcx, which tc does not show; None: cannot tell.

    Asks the kernel (BPF_PROG_QUERY, Linux 6.6); needs CAP_NET_ADMIN.
    """
    number = _SYS_BPF.get(platform.machine())
    if ifindex is None or number is None:
        return None
    ids = (ctypes.c_uint32 * _MOST_PROGRAMS)()
    query = ctypes.create_string_buffer(
        _QUERY.pack(ifindex, hook, 0, 0, ctypes.addressof(ids), _MOST_PROGRAMS, 0, 0, 0, 0, 0)
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, _BPF_PROG_QUERY, query, _QUERY.size):
        return None
    (count,) = struct.unpack_from("=I", query, 24)
    return list(ids[:count])
