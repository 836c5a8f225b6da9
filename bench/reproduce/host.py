# SPDX-License-Identifier: Apache-2.0
"""The loopback at work: a server, forwarders and a client that share one namespace's `lo`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import connections, facts
from bench.agent import Agent, Message
from bench.cells import PAYLOAD_SIZES, Cell
from bench.chain import Chain, Host
from bench.counters import HostDelta, difference
from bench.errors import BenchError
from bench.fleet import Fleet, ask_all
from bench.hop import loopback_chain, payloads, version
from bench.lab.lifecycle import add_loopback
from bench.lab.model import LOOPBACK_HOST
from bench.rawsample import RawSample

_PREPARE_LIMIT_S = 150.0
_FETCH_LIMIT_S = 120.0
_SLACK_S = 15.0


def make(chain: Chain) -> Chain:
    """Give a lab a loopback namespace, and return it as a chain: hosts are roles in it."""
    add_loopback(chain.inventory, loopback_chain.CLIENT_PORTS)

    def role(host: Host, name: str, port: int) -> Host:
        return replace(
            host,
            name=name,
            data_ip=loopback_chain.ADDRESS,
            data_nic=loopback_chain.NIC,
            port=port,
            xdp_attach=loopback_chain.ATTACH,
            ssh_vars={**host.ssh_vars, "ansible_host": LOOPBACK_HOST},
        )

    ports = loopback_chain.ports(loopback_chain.MOST_FORWARDERS)
    return Chain(
        Path(LOOPBACK_HOST),
        role(chain.client, LOOPBACK_HOST, 0),
        tuple(role(chain.hops[0], f"port-{port}", port) for port in ports),
        role(chain.server, f"port-{loopback_chain.SERVER_PORT}", loopback_chain.SERVER_PORT),
    )


class LoopbackSession:
    """Agents of client, forwarders and server in one namespace, from start to orderly end."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        # One agent has all forwarders.
        self._forwarders_host = replace(chain.hops[0], name="forwarders")
        self._fleet = Fleet([chain.client, self._forwarders_host, chain.server])
        self._agents: list[Agent] = []
        self._active = ("direct", 0)
        # What the forwarders said when they were switched.
        self.said: dict[str, Message] = {}

    def __enter__(self) -> LoopbackSession:
        """Connect, start nginx and every agent. Raises BenchError."""
        self._fleet.__enter__()
        try:
            self._start()
        except BaseException:
            self._fleet.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the agents; whatever they set up goes with them."""
        self._fleet.close()

    def _start(self) -> None:
        chain = self._chain
        names = (chain.client.name, self._forwarders_host.name, chain.server.name)
        agents = self._fleet.start_agents(
            dict(zip(names, ("load", "loopback", "serve"), strict=True))
        )
        self._client, self._forwarders, server = (agents[name] for name in names)
        self._agents = [self._client, self._forwarders, server]
        where = {"data_nic": chain.client.data_nic, "data_ip": chain.client.data_ip}
        place: dict[str, Any] = {"op": "place", "version": version.digest()}
        place["lease_s"] = _PREPARE_LIMIT_S + _SLACK_S
        server.ask({**place, **where, "server_port": chain.server.port}, _PREPARE_LIMIT_S)
        self._client.ask({**place, **where, "timer": True}, _PREPARE_LIMIT_S)
        self._forwarders.ask(place, _PREPARE_LIMIT_S)

    def facts(self) -> dict[str, Any]:
        """Return what the machine is."""
        self._renew(_PREPARE_LIMIT_S)
        return facts.of_hosts(self._fleet, [self._chain.client])

    def transcripts(self) -> dict[str, str]:
        """Return what was said with each agent so far, also after the end."""
        return {agent.host.name: agent.transcript for agent in self._agents}

    def _renew(self, lease_s: float) -> None:
        ask_all(self._agents, {"op": "renew", "lease_s": lease_s})

    def switch(self, mode: str, forwarders: int) -> None:
        """Have a chain of so many forwarders forward. Raises BenchError."""
        if self._active == (mode, forwarders):
            return
        self._active = ("", -1)
        message = {"mode": mode, "forwarders": forwarders, "lease_s": _PREPARE_LIMIT_S + _SLACK_S}
        answer = self._forwarders.ask(message, _PREPARE_LIMIT_S)
        kept = ("attach", "prog_id", "tcp_timestamps")
        self.said[f"{mode} {forwarders}"] = {key: answer[key] for key in kept if key in answer}
        self._active = (mode, forwarders)

    def verify(self, mode: str, forwarders: int) -> None:
        """Switch, download every payload once, and check what arrived. Raises BenchError."""
        self._renew(_FETCH_LIMIT_S + _PREPARE_LIMIT_S)
        self.switch(mode, forwarders)
        message = {"op": "fetch", **self._entry(forwarders), "sizes": list(PAYLOAD_SIZES)}
        answer = self._client.ask({**message, "lease_s": _FETCH_LIMIT_S}, _FETCH_LIMIT_S)
        for got in answer["payloads"]:
            size = got["size_bytes"]
            digest = hashlib.sha256(payloads.content(size)).hexdigest()
            if got["status"] != 200 or got["sha256"] != digest:
                raise BenchError(
                    f"{mode}, {forwarders} forwarders on loopback: the payload of {size} bytes "
                    f"arrives damaged ({got['received_bytes']} bytes, status {got['status']})",
                    host=LOOPBACK_HOST,
                )

    def _entry(self, forwarders: int) -> dict[str, Any]:
        port = loopback_chain.SERVER_PORT - forwarders
        return {"ip": loopback_chain.ADDRESS, "port": port}

    def sample(self, cell: Cell, limit_s: int, timeout_s: int) -> RawSample:
        """Run siege once for a cell; between its first and its last line nothing is sent.

        limit_s: when siege is cut off. timeout_s: when siege gives a silent connection up.
        """
        lease_s = limit_s + _SLACK_S
        self._renew(lease_s + _PREPARE_LIMIT_S)
        self.switch(cell.mode, cell.hops)
        before = self._forwarders.ask({"op": "counters", "lease_s": lease_s + _SLACK_S})
        siege: dict[str, Any] = {
            "op": "siege",
            **self._entry(cell.hops),
            "size_bytes": cell.size_bytes,
            "concurrency": cell.concurrency,
            "repetitions": cell.repetitions,
            "limit_s": limit_s,
            "timeout_s": timeout_s,
            "lease_s": lease_s,
            "timer": True,
        }
        answer = self._client.ask(siege, lease_s, quiet_s=limit_s)
        after = self._forwarders.ask({"op": "counters"})
        values = difference(answer["before"], answer["after"])
        hosts = [HostDelta(self._client.host.name, "client", values)]
        hosts += [
            HostDelta(f"port-{port}", "hop", {}, _grown(before["counters"].get(port, {}), counted))
            for port, counted in after["counters"].items()
        ]
        return RawSample(
            stdout=answer["stdout"],
            stderr=answer["stderr"],
            status=answer["status"],
            timed_out=answer["timed_out"],
            started_at=answer["started_at"],
            wall_s=answer["wall_s"],
            hosts=tuple(hosts),
            timed=answer["timed"],
            lost=answer["lost"],
            records=self._records(),
        )

    def _records(self) -> bytes:
        """Fetch what the connection timer saw in the last sample. Raises BenchError."""
        question = {"op": "connections", "lease_s": _PREPARE_LIMIT_S}
        try:
            return connections.gather(lambda: self._client.ask(question))
        except ValueError as error:
            cause = f"the connection timer's records are damaged: {error}"
            raise BenchError(cause, host=LOOPBACK_HOST) from None


def _grown(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before.get(name, 0) for name, count in after.items()}
