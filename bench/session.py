# SPDX-License-Identifier: Apache-2.0
"""A chain at work: its agents, switched from cell to cell, verified, and asked for samples."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Sequence
from typing import Any

from bench import attend, clocks, connections, facts
from bench.cells import MODES, PAYLOAD_SIZES, Cell
from bench.chain import Chain, Host
from bench.counters import HostDelta, difference
from bench.errors import BenchError, HostsError
from bench.fleet import Agent, Fleet, Message, ask_all, ask_each
from bench.hop import payloads, version
from bench.hop.config import NAT_POLICIES
from bench.keeper import Keeper
from bench.owner import Owner
from bench.rawsample import RawSample
from bench.takeover import take

# Compiling takes 0.3 s on a PC and half a minute in an emulated guest, per host side by side.
PREPARE_LIMIT_S = 150.0
# A NIC may be away for bench.hop.net.LINK_LIMIT_S as XDP leaves it, again as XDP comes, and then
# the next hop's.
SWITCH_LIMIT_S = 100.0
FETCH_LIMIT_S = 120.0

# A bound on a sample, far above what a working chain needs: per sample, transaction and byte.
_SAMPLE_BASE_S = 20.0
_SAMPLE_TRANSACTION_S = 0.05
_SAMPLE_BYTES_PER_S = 1e6
MAX_SAMPLE_S = 3500
_SLACK_S = 15.0
_RECOVER_S, _RECOVER_EVERY_S = 10.0, 0.5

Forwarding = tuple[str, str, int]
"""(mode, attach, hops): what the hops have to be switched for."""


def forwarding_of(cell: Cell) -> Forwarding:
    """Return what of a cell concerns the hops."""
    return cell.mode, cell.attach, cell.hops


def sample_limit_s(cell: Cell) -> int:
    """Return how long a sample may take before it is cut off."""
    transfer_s = cell.transactions * cell.size_bytes / _SAMPLE_BYTES_PER_S
    limit_s = _SAMPLE_BASE_S + cell.transactions * _SAMPLE_TRANSACTION_S + transfer_s
    return min(int(limit_s), MAX_SAMPLE_S)


class Session:
    """Agents on client, server and the first `hops` hops, from start to orderly end."""

    def __init__(
        self,
        chain: Chain,
        hops: int,
        modes: Sequence[str],
        *,
        trace: bool = False,
        timer: bool = False,
    ) -> None:
        self._chain = chain
        self._trace = trace
        self._timer = timer
        self._hops = chain.hops[:hops]
        self._modes = [mode for mode in modes if MODES[mode].hops]
        self._fleet = Fleet([chain.client, *self._hops, chain.server])
        self._active: Forwarding = ("direct", "", 0)
        self._agents: list[Agent] = []
        self._keeper = Keeper()
        self._offloads = ""
        # What each hop said when it was switched: {host: {mode: {"attach", "prog_id", …}}}
        self.attach_facts: dict[str, dict[str, Any]] = {hop.name: {} for hop in self._hops}
        # What each host said of its NICs' offloads: {host: {"equal": {NIC: {…}}}}
        self.offload_facts: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> Session:
        """Connect, start nginx and every agent, prepare the modes. Raises BenchError."""
        self._fleet.__enter__()
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the agents; whatever they set up goes with them."""
        self._close()

    def _close(self) -> None:
        self._keeper.end()
        self._fleet.close()

    def transcripts(self) -> dict[str, str]:
        """Return what was said with each host's agent so far, also after the end."""
        return {agent.host.name: agent.transcript for agent in self._agents}

    def _start(self) -> None:
        chain = self._chain
        roles = {chain.client.name: "load", chain.server.name: "serve"}
        roles |= {hop.name: "forward" for hop in self._hops}
        agents = self._fleet.start_agents(roles)
        self._client, self._server = agents[chain.client.name], agents[chain.server.name]
        self._hop_agents = [agents[hop.name] for hop in self._hops]
        self._agents = list(agents.values())
        self._keeper.begin(self._agents)
        places = [(agent, self._place(agent.host)) for agent in agents.values()]
        take(places, PREPARE_LIMIT_S)

    def facts(self) -> dict[str, Any]:
        """Return what each host is, one line of facts a host."""
        return facts.of_hosts(self._fleet, [agent.host for agent in self._agents])

    def read_clocks(self) -> dict[str, clocks.Reading]:
        """Return how far each host's clock is from this machine's. Raises BenchError."""
        return clocks.of_agents(self._agents)

    def _place(self, host: Host) -> dict[str, Any]:
        place: dict[str, Any] = {
            "op": "place",
            "version": version.digest(),
            "holder": Owner.me().text,
            "data_nic": host.data_nic,
            "data_ip": host.data_ip,
        }
        if host.role == "client" and self._timer:
            place["timer"] = True
        if host.role == "server":
            place["server_port"] = host.port
        if host.role == "hop":
            place |= {"forward_port": host.port, "prepare": self._modes, **_optional(host)}
            if self._trace:
                place["trace"] = True
        return place

    def switch(self, forwarding: Forwarding) -> None:
        """Have the hops forward as asked; those that take no part forward nothing.

        Raises HostsError with every hop that refuses.
        """
        if forwarding == self._active:
            return
        mode, attach, hops = forwarding
        was_hops = self._active[2]
        # Unknown until all have agreed.
        self._active = ("", "", max(hops, was_hops))
        pairs: list[tuple[Agent, dict[str, Any]]] = []
        # SSH may use the same NIC, and be away as long; until an agent hears of the keeper again.
        lease = {"lease_s": SWITCH_LIMIT_S + _SLACK_S}
        for index, agent in enumerate(self._hop_agents[: max(hops, was_hops)]):
            if index >= hops:
                pairs.append((agent, {"mode": "direct", **lease}))
                continue
            next_ip, next_port = self._chain.next_of(index, hops)
            message = {"mode": mode, "next_ip": next_ip, "next_port": next_port, **lease}
            if attach:
                message["attach"] = attach
            pairs.append((agent, message))
        answers = ask_each(pairs, SWITCH_LIMIT_S)
        for (agent, _), answer in zip(pairs[:hops], answers, strict=False):
            kept = {
                key: answer[key]
                for key in ("attach", "prog_id", "table", "out", "ports")
                if key in answer
            }
            self.attach_facts[agent.host.name][f"{mode} {attach}".strip()] = kept
        self._active = forwarding

    def use_offloads(self, how: str) -> None:
        """Have the data NICs of every host merge and split segments as asked, `equal` or `native`.

        Nothing forwards meanwhile: a driver may stop its queues. Raises HostsError.
        """
        if how == self._offloads:
            return
        self.switch(("direct", "", 0))
        self._offloads = ""
        message = {"op": "offloads", "use": how, "lease_s": SWITCH_LIMIT_S + _SLACK_S}
        for agent, answer in zip(
            self._agents, ask_all(self._agents, message, SWITCH_LIMIT_S), strict=True
        ):
            self.offload_facts.setdefault(agent.host.name, {})[how] = answer["offloads"]
        self._offloads = how

    def verify(self, forwarding: Forwarding) -> None:
        """Switch, download every payload once, and check what arrived and what each hop counted.

        Raises BenchError: a chain that does not deliver is not measured.
        """
        self.switch(forwarding)
        before = self.flows(forwarding[2])
        sizes = PAYLOAD_SIZES
        answer = self.fetch(forwarding[2], sizes)
        name = describe(forwarding)
        digests = _digests()
        for got in answer["payloads"]:
            size = got["size_bytes"]
            if got["status"] != 200:
                raise BenchError(
                    f"{name}: the server answers {got['status']} for the payload of {size} bytes",
                    host=self._chain.server.name,
                    remedy="run bench deploy",
                )
            if got["received_bytes"] != size or got["sha256"] != digests[size]:
                raise BenchError(
                    f"{name}: the payload of {size} bytes arrives damaged "
                    f"({got['received_bytes']} bytes)",
                    host=self._chain.client.name,
                    remedy="bench doctor checks the offloads; bench deploy renews payloads",
                )
        after = self.flows(forwarding[2])
        idle = [
            (hop.name, f"{name}: carried {now - then} of {len(sizes)} connections")
            for hop, then, now in zip(self._hops, before, after, strict=False)
            if now - then < len(sizes)
        ]
        if idle:
            raise HostsError(idle, remedy="is another way to the server open? check routes")

    def fetch(self, hops: int, sizes: Sequence[int]) -> Message:
        """Download payloads of these sizes, one connection each; return the client's answer."""
        ip, port = self._chain.entry(hops)
        return self._client.ask(
            {"op": "fetch", "ip": ip, "port": port, "sizes": list(sizes)},
            FETCH_LIMIT_S,
        )

    def choose_trace(self, client_port: int, per_second: int, mask: int) -> None:
        """Have the hops report packets with a port of the client's (0: any), so many a second (0:
        all), and of those the ones that the mask selects (bench/hop/trace.py).

        Deeper hops see other ports than the client's: those that it will get on the way, unless
        another client has them.
        """
        source, port = self._chain.client.data_ip, client_port
        for agent in self._hop_agents:
            chosen = {"port": port, "per_second": per_second, "mask": mask}
            agent.ask({"op": "trace", **chosen})
            if port:
                port = int(agent.ask({"op": "trace", "home_of": [source, port]})["port"])
            source = self._out_of(agent.host)

    def _out_of(self, hop: Host) -> str:
        """Return a hop's address towards the next."""
        for said in self.attach_facts[hop.name].values():
            if "out" in said:
                return str(said["out"])
        return hop.data_ip

    def traced(self) -> list[Message]:
        """Return what each hop has to report since the last time (bench/hop/trace.py)."""
        return ask_all(self._hop_agents, {"op": "trace"})

    def flows(self, hops: int) -> tuple[int, ...]:
        """Return how many connections each of the first `hops` hops has taken part in.

        Counts only grow while the hops are not switched.
        """
        answers = ask_all(self._hop_agents[:hops], {"op": "counters"})
        return tuple(int(each["counters"].get("flows_opened", 0)) for each in answers)

    def sample(
        self, cell: Cell, *, timer: bool | None = None, expected_s: float | None = None
    ) -> RawSample:
        """Run siege once for a cell. For as long as expected, no SSH traffic while it runs.

        timer: whether its connections are timed; None for what the session was made for.
        expected_s: how long siege took before, None where nobody knows. Raises BenchError when
        the client, the server or a hop is no longer there, or not at work.
        """
        limit_s = sample_limit_s(cell)
        lease_s = attend.lease_s(expected_s)
        timed = self._timer if timer is None else timer
        self.use_offloads(cell.offloads)
        self.switch(forwarding_of(cell))
        counting = [*self._hop_agents[: cell.hops], self._server]
        look = {"op": "counters", "lease_s": lease_s}
        ip, port = self._chain.entry(cell.hops)
        siege: dict[str, Any] = {
            "op": "siege",
            "ip": ip,
            "port": port,
            "size_bytes": cell.size_bytes,
            "concurrency": cell.concurrency,
            "repetitions": cell.repetitions,
            "limit_s": limit_s,
            "alone_s": int(lease_s),
            "lease_s": lease_s,
            "timer": timed,
        }
        with self._keeper.quiet():
            # Also of those that have nothing to do meanwhile.
            ask_all(self._agents, {"op": "renew", "lease_s": lease_s})
            before = ask_all(counting, look)
            self._client.send(siege)
            most_s = limit_s + _SLACK_S
            answer = attend.attend(self._client, counting, most_s, expected_s, self._keeper.keep)
            after = ask_all(counting, look)
        client = HostDelta(
            self._client.host.name, "client", difference(answer["before"], answer["after"])
        )
        others = [
            _delta(agent, then, now)
            for agent, then, now in zip(counting, before, after, strict=True)
        ]
        return RawSample(
            stdout=answer["stdout"],
            stderr=answer["stderr"],
            status=answer["status"],
            timed_out=answer["timed_out"],
            started_at=answer["started_at"],
            wall_s=answer["wall_s"],
            hosts=(client, *others),
            timed=answer.get("timed"),
            lost=answer.get("lost"),
            records=self._records() if timed else None,
        )

    def recover(self) -> None:
        """Have every host at work again after a sample failed; what has ended is started again.

        A NIC without a link is waited for. Raises BenchError with what is still not right.
        """
        # Starts nginx anew, and puts the server's offloads back.
        self._server.ask(self._place(self._server.host), PREPARE_LIMIT_S)
        self._active, self._offloads = ("", "", len(self._hops)), ""
        self.switch(("direct", "", 0))
        asked = [(self._client, "renew"), *((each, "counters") for each in self._agents[1:])]
        look = [(each, {"op": word}) for each, word in asked]
        until = time.monotonic() + _RECOVER_S
        while True:
            try:
                ask_each(look)
                break
            except BenchError:
                # A link may come back; an agent or its SSH does not.
                for each in self._agents:
                    each.require_there()
                if time.monotonic() > until:
                    raise
            time.sleep(_RECOVER_EVERY_S)

    def _records(self) -> bytes:
        """Fetch what the connection timer saw in the last sample. Raises BenchError."""
        question = {"op": "connections"}
        try:
            return connections.gather(lambda: self._client.ask(question))
        except ValueError as error:
            cause = f"the connection timer's records are damaged: {error}"
            raise BenchError(cause, host=self._client.host.name) from None


def _delta(agent: Agent, before: Message, after: Message) -> HostDelta:
    then = before["counters"]
    return HostDelta(
        host=agent.host.name,
        role=agent.host.role,
        values=difference(before["host"], after["host"]),
        forwarder={name: now - then.get(name, 0) for name, now in after["counters"].items()},
    )


def _optional(hop: Host) -> dict[str, Any]:
    """Return what the inventory says of a hop beyond what every hop has."""
    policy = "" if hop.nat_policy == NAT_POLICIES[0] else hop.nat_policy
    said = {
        "egress_nic": hop.egress_nic,
        "nat_ports": hop.nat_ports and list(hop.nat_ports),
        "nat_flows": hop.nat_flows,
        "nat_policy": policy,
    }
    return {key: value for key, value in said.items() if value}


def describe(forwarding: Forwarding) -> str:
    """Return words for a message: `xdp (native), 3 hops`."""
    mode, attach, hops = forwarding
    if not hops:
        return mode
    how = f"{mode} ({attach})" if attach else mode
    return f"{how}, {hops} hop" + ("" if hops == 1 else "s")


@functools.cache
def _digests() -> dict[int, str]:
    return {size: hashlib.sha256(payloads.content(size)).hexdigest() for size in PAYLOAD_SIZES}
