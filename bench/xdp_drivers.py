# SPDX-License-Identifier: Apache-2.0
"""Which NIC drivers run XDP natively, from which kernel on, and what else each of them asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

Kernel = tuple[int, int]

# A page of 4096 bytes less XDP's headroom of 256, skb_shared_info of 320, and 22 for the Ethernet
# header with two tags: what drivers that keep a packet in one page allow.
PAGE_MTU = 3498


@dataclass(frozen=True)
class Driver:
    """One driver of Linux itself.

    nics: what it drives. first_kernel: the first with native XDP, as (major, minor). max_mtu: the
    largest in bytes at which it takes a program without fragments, as ours is. limits: what else
    it asks for, in words, empty for nothing in particular.
    """

    nics: str
    first_kernel: Kernel
    max_mtu: int = PAGE_MTU
    limits: str = ""


_LRO = "LRO off"
HALF = "at most half of its queues in use: XDP takes the others to send by"

# By the name that `ethtool -i` says. Kernels: the commits that docs/kernel-versions.md of
# iovisor/bcc and docs/linux/program-type/BPF_PROG_TYPE_XDP.md of isovalent/ebpf-docs name. MTUs:
# the latter, for x86; where a driver itself sets no limit, that of a page. Limits: what the
# drivers' own XDP_SETUP_PROG functions refuse.
DRIVERS: Mapping[str, Driver] = {
    "mlx4_en": Driver("Mellanox ConnectX-3", (4, 8)),
    "mlx5_core": Driver("NVIDIA and Mellanox ConnectX-4 and later", (4, 9), limits=_LRO),
    "nfp": Driver("Netronome Agilio", (4, 10), limits="runs XDP on the NIC, too (offload)"),
    "qede": Driver("Marvell and QLogic FastLinQ", (4, 10)),
    "virtio_net": Driver(
        "virtual machines of KVM and QEMU",
        (4, 10),
        limits="two queues for each CPU, or it shares queues; the host's guest_tso, guest_csum "
        "and the like off, or changeable (ctrl_guest_offloads)",
    ),
    "bnxt_en": Driver("Broadcom NetXtreme-C and -E", (4, 11), limits="combined queues; " + _LRO),
    "ixgbe": Driver("Intel 82599, X520, X540, X550", (4, 12), 3050, _LRO),
    "nicvf": Driver("Cavium ThunderX", (4, 12), 1508, HALF),
    "i40e": Driver("Intel X710, XL710, XXV710, X722", (4, 13), 3046, _LRO),
    "tun": Driver("tun and tap devices", (4, 14), 1500),
    "ixgbevf": Driver("virtual functions of Intel 82599 to X550", (4, 17), 3050),
    "veth": Driver(
        "pairs of virtual Ethernet, as in containers and the lab",
        (4, 19),
        limits="what it sends back by XDP needs an XDP program on the peer, too",
    ),
    "fsl_dpaa2_eth": Driver("NXP DPAA2", (5, 0)),
    "netsec": Driver("Socionext NetSec", (5, 3), 1500),
    "cpsw": Driver("TI CPSW", (5, 3)),
    "sfc": Driver("Solarflare 8000 series, X2 and later", (5, 5)),
    "ice": Driver("Intel E810, E823", (5, 5), 3046, _LRO),
    "mvneta": Driver("Marvell NETA", (5, 5)),
    "ena": Driver("Amazon EC2", (5, 6), limits=HALF),
    "hv_netvsc": Driver("virtual machines of Hyper-V and Azure", (5, 6), limits=_LRO),
    "mvpp2": Driver("Marvell PPv2", (5, 9)),
    "vif": Driver("virtual machines of Xen", (5, 9), limits="a backend that leaves headroom"),
    "igb": Driver("Intel I210, I211, I350, 82576, 82580", (5, 10), 3046),
    "fsl_dpa": Driver("NXP DPAA", (5, 11)),
    "igc": Driver("Intel I225, I226", (5, 13), 1500),
    "st_gmac": Driver("Synopsys GMAC, as on many ARM boards", (5, 13), 1500),
    "st_xgmac": Driver("Synopsys XGMAC", (5, 13), 1500),
    "fsl_enetc": Driver("NXP ENETC", (5, 13)),
    "rvu_nicpf": Driver("Marvell OcteonTX2", (5, 16), 1508),
    "mana": Driver("Microsoft Azure", (5, 17)),
    "funeth": Driver("Fungible", (5, 18)),
    "atlantic": Driver("Aquantia and Marvell AQtion", (5, 19), 2048, _LRO),
    "mtk_soc_eth": Driver("MediaTek", (6, 0)),
    "fec": Driver("NXP i.MX", (6, 2)),
    "lan966x-switch": Driver("Microchip LAN966x", (6, 2)),
    "tsnep": Driver("Engleder TSN endpoint", (6, 3)),
    "gve": Driver("Google Compute Engine", (6, 4), 2032, HALF),
    "vmxnet3": Driver("virtual machines of VMware", (6, 6), 3494, _LRO),
    "ionic": Driver("AMD Pensando", (6, 9)),
    "am65-cpsw-nuss": Driver("TI AM65 CPSW", (6, 10)),
    "idpf": Driver("Intel infrastructure data-path functions (E2100)", (6, 18)),
}

# Of these the kernel's own driver has no XDP at all, up to Linux 6.18.
WITHOUT = frozenset(
    [
        *("e1000", "e1000e", "r8169", "r8152", "8139too", "8139cp", "pcnet32", "tg3", "bnx2"),
        *("bnx2x", "be2net", "cxgb4", "forcedeth", "sky2", "alx", "atl1c", "asix", "ax88179_178a"),
        *("cdc_ether", "bridge", "dummy", "macvlan", "ipvlan"),
    ]
)
# The only one with a NIC that runs BPF itself (net/core/dev.c asks for XDP_SETUP_PROG_HW).
OFFLOAD_DRIVERS = frozenset(["nfp"])
# Bonding hands a program to each of its NICs' drivers.
BOND_KERNEL: Kernel = (5, 15)


def kernel_of(release: str) -> Kernel | None:
    """Return (major, minor) of a kernel's release such as `6.1.0-56-amd64`, None if it has none."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else None


def words(kernel: Kernel) -> str:
    """Return a kernel as people write it: `5.10`."""
    return f"{kernel[0]}.{kernel[1]}"
