# SPDX-License-Identifier: Apache-2.0
"""What documents say of the code is what the code does, and what they link to is there.

python tests/unit/test_documents.py     writes the table of drivers anew
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.inventory import load
from bench.xdp_drivers import DRIVERS, WITHOUT, words

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])
INVENTORIES = sorted((REPOSITORY / "inventories").glob("*.ini"))
PHYSICAL = REPOSITORY / "docs" / "physical.md"
_TABLE = re.compile(r"(?<=xdp_drivers\.py -->\n).*?(?=<!-- end -->)", re.DOTALL)
_WITHOUT = re.compile(r"(?<=No native XDP, as of Linux 6\.18,\nhave: ).*?(?=\.\n)", re.DOTALL)


def table() -> str:
    """Return the drivers as a table."""
    rows = [
        f"| {name} | {driver.nics} | {words(driver.first_kernel)} | {driver.max_mtu} "
        f"| {driver.limits} |"
        for name, driver in DRIVERS.items()
    ]
    head = ["| driver | of | from Linux | MTU up to | asks for |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def without() -> list[str]:
    """Return the drivers that have no native XDP, in the order of the alphabet."""
    return sorted(WITHOUT)


def test_the_table_of_drivers() -> None:
    (found,) = _TABLE.findall(PHYSICAL.read_text())
    assert found == table(), "python tests/unit/test_documents.py"


def test_the_drivers_without_xdp() -> None:
    (found,) = _WITHOUT.findall(PHYSICAL.read_text())
    assert re.findall(r"`(\w+)`", found) == without()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    for target in targets:
        if not re.match(r"[a-z]+:|#", target):
            assert (document.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.stem)
def test_every_inventory_can_be_read(inventory: Path) -> None:
    chain = load(str(inventory))
    assert len(chain.hops) >= 2


def test_the_example_of_physical_machines_has_what_it_promises() -> None:
    chain = load(str(REPOSITORY / "inventories" / "physical.example.ini"))
    ssh, data = ({host.ssh_vars["ansible_host"], host.data_ip} for host in chain.hosts[:2])
    assert not ssh & data
    assert [hop.egress_nic for hop in chain.hops if hop.egress_nic]
    assert [hop.data_nic for hop in chain.hops if re.search(r"\.\d+$", hop.data_nic)]
    assert len({hop.port for hop in chain.hops}) > 1
    assert len({hop.data_nic for hop in chain.hops}) > 1
    settings = [str(hop.ssh_vars) for hop in chain.hops]
    for word in ("ProxyJump", "ansible_port", "ansible_ssh_private_key_file", "ansible_become"):
        assert any(word in each for each in settings), word


def main() -> None:
    """Write what is made from the code into the document."""
    text = _TABLE.sub(lambda _: table(), PHYSICAL.read_text())
    names = [f"`{name}`" for name in without()]
    lines, line = [], ""
    for name in (*(f"{name}," for name in names[:-1]), names[-1]):
        if len(line) + len(name) > 110:
            lines, line = [*lines, line.rstrip()], ""
        line += f"{name} "
    PHYSICAL.write_text(_WITHOUT.sub(lambda _: "\n".join([*lines, line.rstrip()]), text))


if __name__ == "__main__":
    main()
