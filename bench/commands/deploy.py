# SPDX-License-Identifier: Apache-2.0
"""`bench deploy` and `bench undeploy`: provision the hosts of an inventory, and undo it."""

from __future__ import annotations

import time
from pathlib import Path

import click

from bench import current, paths
from bench.commands.options import inventory_option
from bench.deploy import DeployResult, deploy, undeploy
from bench.inventory import load
from bench.plain import plain
from bench.verify import verify

_check_option = click.option("--check", is_flag=True, help="Change nothing; say what would.")


def _progress(text: str) -> None:
    # Some of it is what hosts said.
    click.echo(plain(text), err=True)


def _artifacts() -> Path:
    return paths.state_dir() / "artifacts"


def _summary(what: str, result: DeployResult, took_s: float) -> None:
    for host, counts in result.hosts.items():
        click.echo(f"{host}: {counts.ok} ok, {counts.changed} changed")
    click.echo(f"{what}: {result.changed} changed, {took_s:.1f} s")


@click.command("deploy")
@inventory_option
@_check_option
def deploy_command(inventory: str | None, check: bool) -> None:
    """Install what each host needs, verify it, and remember the inventory as current."""
    chain = load(inventory)
    begin = time.monotonic()
    result = deploy(chain, artifacts=_artifacts(), progress=_progress, check=check)
    if not check:
        verify(chain)
        current.remember(chain.inventory)
    _summary("deploy" if not check else "deploy --check", result, time.monotonic() - begin)


@click.command("undeploy")
@inventory_option
@_check_option
@click.option("--packages", is_flag=True, help="Remove the packages that deploy installed, too.")
def undeploy_command(inventory: str | None, check: bool, packages: bool) -> None:
    """Remove what deploy put on each host, and restore what it changed."""
    chain = load(inventory)
    begin = time.monotonic()
    result = undeploy(
        chain, artifacts=_artifacts(), progress=_progress, check=check, remove_packages=packages
    )
    if not check:
        current.forget(chain.inventory)
    _summary("undeploy" if not check else "undeploy --check", result, time.monotonic() - begin)
