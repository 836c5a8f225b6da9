# SPDX-License-Identifier: Apache-2.0
"""The whole path over podman's containers on one network: provision, look, measure, undo."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from tests.containers.conftest import HOPS, Chain, ports
from tests.valid import require_valid

_HOPS = tuple(f"hop{i}" for i in range(1, HOPS + 1))
_HOSTS = ("client", *_HOPS, "server")
_REQUESTS = 20
_FORWARDING = "/proc/sys/net/ipv4/conf/eth0/forwarding"


def _changes(output: str) -> set[str]:
    """Return `HOST: TASK` of each task of a deploy that changed something."""
    return {line.removesuffix(" … changed") for line in output.splitlines() if "… changed" in line}


@pytest.fixture(scope="module")
def deployed(chain: Chain) -> tuple[Chain, set[str]]:
    """The chain after a first deploy, and what that changed."""
    done = chain.bench("deploy", "-i", chain.inventory)
    assert done.status == 0, done.stderr
    return chain, _changes(done.stderr)


@pytest.fixture(scope="module")
def results(deployed: tuple[Chain, set[str]]) -> Path:
    """The folder of a small run of every mode."""
    chain, _ = deployed
    done = chain.bench(
        *("run", "-i", chain.inventory, "--mode", "direct,socat,nft,xdp", "--hops", f"1-{HOPS}"),
        *("--size", "624,159744", "--concurrency", "1", "--requests", str(_REQUESTS)),
        *("--blocks", "1", "--no-aa"),
    )
    assert done.status == 0, done.stderr
    assert "every payload verified through 7 ways" in done.stderr
    (folder,) = (chain.checkout / "results").glob("[0-9]*-*")
    return folder


# --- images ----------------------------------------------------------------------------------


def test_the_node_image_holds_no_key(images: Chain) -> None:
    found = images.engine.podman("run", "--rm", "hopbench-node", "ls", "/etc/ssh")
    assert "sshd_config" in found
    assert "host" not in found
    assert "authorized_keys" not in found


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ((), "run with CAP_SYS_ADMIN"),
        (("--cap-add", "SYS_ADMIN"), "run with CAP_NET_ADMIN"),
        (("--cap-add", "SYS_ADMIN,NET_ADMIN"), "nobody may log in"),
    ],
    ids=["unprivileged", "no network", "no key"],
)
def test_a_node_that_cannot_work_says_why(
    images: Chain, options: tuple[str, ...], word: str
) -> None:
    images.engine.podman("network", "create", "--internal", "--disable-dns", "apart")
    try:
        done = images.engine.inside(
            "podman", "run", "--rm", "--network", "apart", *options, "hopbench-node"
        )
    finally:
        images.engine.podman("network", "rm", "apart")
    assert done.status == 1
    assert word in done.error
    assert done.error.startswith("hopbench: ")


def test_the_controller_image_knows_playbooks_and_inventories(images: Chain) -> None:
    run = ("run", "--rm", "hopbench-controller")
    assert images.engine.podman(*run, "--version").startswith("hopbench")
    done = images.engine.inside(
        "podman", *run, "run", "-i", "containers", "--mode", "xdp", "--dry-run"
    )
    assert done.status == 0, done.stderr


# --- the chain -------------------------------------------------------------------------------


def test_every_port_of_the_network_switches_by_xdp(chain: Chain) -> None:
    found = ports(chain.engine)
    assert len(found) == len(_HOSTS)
    for port in found:
        xdp = port["xdp"]
        # 1: in the driver (XDP_ATTACHED_DRV).
        assert (xdp["mode"], xdp["prog"]["name"]) == (1, "hopbench_wire"), port


def test_nodes_have_two_privileges_and_no_more(chain: Chain) -> None:
    for host in _HOSTS:
        asked = chain.engine.podman(
            "inspect",
            "--format",
            "{{.HostConfig.Privileged}} {{.HostConfig.CapAdd}}",
            f"hopbench-{host}",
        )
        assert asked == "false [CAP_NET_ADMIN CAP_SYS_ADMIN]"
        assert "Seccomp:\t2" in chain.on(host, "cat", "/proc/self/status")
        # Settings of this container's network can be written; the machine's cannot.
        chain.on(host, "test", "-w", _FORWARDING)
        assert (
            chain.engine.inside(
                "podman", "exec", f"hopbench-{host}", "test", "-w", "/proc/sys/kernel/printk"
            ).status
            == 1
        )


def test_every_host_has_a_key_of_its_own(chain: Chain) -> None:
    known = dict(
        line.split(" ", 1) for line in (chain.folder / "known_hosts").read_text().splitlines()
    )
    assert len(set(known.values())) == len(_HOSTS)
    assert chain.folder.stat().st_mode & 0o777 == 0o700
    # Another host's key at an address is refused.
    first, second, *_ = known
    text = (chain.folder / "known_hosts").read_text()
    try:
        (chain.folder / "known_hosts").write_text(text.replace(known[first], known[second]))
        done = chain.bench("doctor", "-i", chain.inventory)
    finally:
        (chain.folder / "known_hosts").write_text(text)
    assert done.status == 1
    assert re.search(r"client: .*host key", done.stdout + done.stderr)


def test_a_chain_that_is_up_is_not_made_again(chain: Chain) -> None:
    done = chain.chain("up")
    assert done.status == 1
    assert "chain hopbench is up" in done.error
    assert chain.chain("status").stdout.count(": Up") == len(_HOSTS)


def test_a_chain_that_cannot_come_up_leaves_nothing(chain: Chain) -> None:
    folder = chain.checkout / "other"
    done = chain.chain(
        "up",
        NAME="other",
        PREFIX="198.19.1",
        FOLDER=str(folder),
        RUN_OPTIONS="--tmpfs /lib/modules:ro",
    )
    assert done.status == 1
    assert "client ended: hopbench: /lib/modules is mounted and has no headers" in done.stderr
    assert not folder.exists()
    assert "other" not in chain.engine.podman("network", "ls", "--format", "{{.Name}}")
    running = chain.engine.podman("ps", "--all", "--format", "{{.Names}}").split()
    assert sorted(running) == sorted(f"hopbench-{host}" for host in _HOSTS)


def test_the_inventory_at_hand_fits_the_default_chain(chain: Chain) -> None:
    """inventories/containers.ini differs from the one made in its third hop and in its folder."""
    given = (chain.checkout / "inventories" / "containers.ini").read_text()
    wanted = re.sub(r"hop3 .*\n", "", given).replace("198.19.0.105", "198.19.0.104")
    wanted = wanted.replace("{{ inventory_dir }}/../.containers/", "{{ inventory_dir }}/")

    def settings(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith("#")]

    assert settings(chain.inventory.read_text()) == settings(wanted)


# --- the whole path --------------------------------------------------------------------------


def test_the_image_leaves_nothing_to_deploy_but_forwarding(
    deployed: tuple[Chain, set[str]],
) -> None:
    _, changed = deployed
    assert changed == {f"{hop}: let the data NIC forward" for hop in _HOPS}


def test_a_second_deploy_changes_nothing(deployed: tuple[Chain, set[str]]) -> None:
    done = deployed[0].bench("deploy", "-i", deployed[0].inventory)
    assert done.status == 0, done.stderr
    assert "deploy: 0 changed" in done.stderr + done.stdout
    assert _changes(done.stderr) == set()


def test_doctor_finds_nothing_in_the_way(deployed: tuple[Chain, set[str]]) -> None:
    done = deployed[0].bench("doctor", "-i", deployed[0].inventory)
    assert done.status == 0, done.stdout + done.stderr
    for hop in _HOPS:
        assert f"{hop}: eth0 (veth)" in done.stdout


def test_every_hop_attached_natively(results: Path) -> None:
    facts = json.loads((results / "run.json").read_text())["host_facts"]
    assert set(facts) == set(_HOSTS)
    for hop in _HOPS:
        assert facts[hop]["nic"]["driver"] == "veth"
        assert facts[hop]["forwarders"]["xdp native"]["attach"] == "native"


def test_samples_are_complete_and_valid(results: Path) -> None:
    assert json.loads((results / "run.json").read_text())["status"] == "complete"
    samples = pd.read_csv(results / "samples.csv")
    measured = samples[~samples.warmup]
    wanted = {("direct", 0)} | {
        (mode, hops) for mode in ("socat", "nft", "xdp") for hops in range(1, HOPS + 1)
    }
    cells = measured[["mode", "hops", "size_bytes"]]
    assert sorted(cells.itertuples(index=False, name=None)) == sorted(
        (*each, size) for each in wanted for size in (624, 159744)
    )
    assert measured.failed.sum() == 0
    assert (measured.transactions == _REQUESTS).all()
    require_valid(measured)


def test_counters_of_every_hop_reconcile(results: Path) -> None:
    counters = pd.read_parquet(results / "counters.parquet").set_index(["sample", "host"])
    samples = pd.read_csv(results / "samples.csv").set_index("sample")
    for name, sample in samples.iterrows():
        for hop in _HOPS[: sample.hops]:
            counted = counters.loc[(name, hop)]
            assert counted.forwarder_flows_opened == sample.transactions, (name, hop)


def test_the_controller_container_goes_the_same_way(
    deployed: tuple[Chain, set[str]], results: Path
) -> None:
    """By the network's addresses, from the network itself; results come out in the checkout."""
    chain, _ = deployed
    done = chain.chain("bench", "deploy", "-i", "containers.ini")
    assert done.status == 0, done.stderr
    assert _changes(done.stderr) == set()
    before = set((chain.checkout / "results").iterdir())
    done = chain.chain(
        *("bench", "run", "--mode", "nft,xdp", "--hops", "1", "--size", "624"),
        *("--requests", str(_REQUESTS), "--blocks", "1", "--no-aa"),
    )
    assert done.status == 0, done.stderr
    new = {path for path in set((chain.checkout / "results").iterdir()) - before if path.is_dir()}
    assert len(new) == 1
    assert json.loads((new.pop() / "run.json").read_text())["status"] == "complete"
    done = chain.chain("bench", "compare", "latest", "--json")
    assert {cell["mode"] for cell in json.loads(done.stdout)["cells"]} == {"nft", "xdp"}


def test_undeploy_puts_everything_back(deployed: tuple[Chain, set[str]], results: Path) -> None:
    chain, _ = deployed
    assert chain.on("hop1", "cat", _FORWARDING) == "1"
    done = chain.bench("undeploy", "-i", chain.inventory)
    assert done.status == 0, done.stderr
    for host in _HOSTS:
        assert chain.on(host, "sh", "-c", "ls /opt") == ""
    for hop in _HOPS:
        assert chain.on(hop, "cat", _FORWARDING) == "0"
        assert "xdp" not in chain.on(hop, "ip", "link", "show", "eth0")
        assert chain.on(hop, "nft", "list", "tables") == ""
