// SPDX-License-Identifier: GPL-2.0-only
/*
 * A single-port forwarder for TCP and UDP with full NAT.
 *
 *   client:c -> HOP:HOP_PORT   becomes   OUT:p -> next:n   and back.
 *
 * docs/forwarder.md says what it does with which packet. Packets that are not
 * of its flows go to the stack untouched: SSH may share the NIC.
 */
#include "checksum.h"
#include "counters.h"
#include "flow.h"
#include "icmp_errors.h"
#include "nat.h"
#include "neighbour.h"
#include "parse.h"
#include "shim.h"
#include "too_big.h"
#include "trace.h"
#include "translate.h"

/* Network order. next_port is 0 while there is no next hop. */
struct settings {
	struct addr next;
	struct addr out;
	__be16 next_port;
	__u16 zero;
};

MAP(settings, ARRAY, __u32, struct settings, 1, 0);

static __always_inline struct settings *settings_now(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(map_of(settings), &zero);
}

/* Was it opened for another next hop than the settings now say? */
static __always_inline int flow_outdated(const struct flow *flow)
{
	const struct settings *set = settings_now();

	return !set || !addr_equal(&flow->next, &set->next) || !addr_equal(&flow->out, &set->out) ||
	       flow->next_port != set->next_port;
}

/* Fill in a flow whose place is ours, and publish it: it is found by client_port. */
static __always_inline void flow_fill(struct packet *pkt, struct flow *flow,
				      const struct settings *set, const struct neighbour *next,
				      const struct neighbour *client, __u32 tick)
{
	__u8 used = FLOW_USED | (next->known ? FLOW_RESOLVED : 0) |
		    (next->by_egress ? FLOW_NEXT_BY_EGRESS : 0) |
		    (client->by_egress ? FLOW_CLIENT_BY_EGRESS : 0);

	flow->next = set->next;
	flow->out = set->out;
	flow->next_port = set->next_port;
	flow->seen[TO_NEXT] = 0;
	flow->seen[TO_CLIENT] = 0;
	flow->limit = idle_limit(flow, pkt->protocol == IPPROTO_UDP);
	__builtin_memcpy(flow->way[TO_NEXT].mac, next->mac, ETH_ALEN);
	flow->way[TO_NEXT].mtu = next->mtu;
	flow->way[TO_NEXT].checked = next->checked;
	/* Not known yet: whoever sent this packet stands in, until it is asked for again. */
	__builtin_memcpy(flow->way[TO_CLIENT].mac, client->known ? client->mac : pkt->eth->h_source,
			 ETH_ALEN);
	flow->way[TO_CLIENT].mtu = client->mtu;
	flow->way[TO_CLIENT].checked = client->checked;
	flow->last = tick;
	flow->client = *source_of(pkt->ip);
	way_describe(flow, pkt->l4->ports.source);
	barrier_();
	flow->used = used;
	barrier_();
	flow->client_port = pkt->l4->ports.source;
}

/* Open a flow, or open the client's old one anew. NULL: drop, counted. */
static __always_inline struct flow *flow_open(struct xdp_md *ctx, struct packet *pkt,
					      struct flow *flow)
{
	const int udp = pkt->protocol == IPPROTO_UDP;
	const struct settings *set = settings_now();
	struct neighbour *next, *client;
	const int known = flow != NULL;
	struct flow *old = NULL;
	__u32 limit = 0;
	__u16 generation;
	const __u32 tick = tick_now();
	struct endpoint end;

	if (!set || !set->next_port) {
		COUNT(pkt, dropped_not_ready);
		return NULL;
	}
	next = neighbour_ask(ctx, &set->out, &set->next, TO_NEXT, pkt->protocol, tick);
	client = neighbour_client(ctx, source_of(pkt->ip), pkt->protocol, tick);
	if (!next || !client) {
		COUNT(pkt, dropped_no_route);
		return NULL;
	}
	end = endpoint_of(source_of(pkt->ip), pkt->l4->ports.source, udp);
	if (FRESH && flow) {
		old = flow;
		generation = old->generation;
		if (place_claim(pkt, place_of(old, udp), generation))
			return NULL;
		place_claimed(old, place_of(old, udp), generation);
		/* Its port has to rest even when it is only idle. */
		limit = old->limit;
		old->limit = REST_TICKS;
	}
	if (FRESH || !flow) {
		flow = port_claim(pkt, &end, old, tick, &next->place);
		if (FRESH && old && !flow)
			old->limit = limit;
		if (!flow)
			return NULL;
		if (FRESH && old && old != flow)
			flow_leave(old, udp);
	}
	flow_fill(pkt, flow, set, next, client, tick);
	pkt->count->flows_opened++;
	if (flow->port == flow->client_port)
		pkt->count->port_kept++;
	else
		pkt->count->port_other++;
	if (known)
		pkt->count->flows_reopened++;
	return flow;
}

/* Note what a packet says about its flow; hardly any says something new. */
static __always_inline void flow_track(struct packet *pkt, struct flow *flow, enum direction to)
{
	const int udp = pkt->protocol == IPPROTO_UDP;
	const struct tcphdr *tcp = &pkt->l4->tcp;
	__u8 seen = SEEN_PACKET;
	int was_closed;

	if (!udp)
		seen |= (tcp->fin ? SEEN_FIN : 0) | (tcp->rst ? SEEN_RST : 0);
	if (likely_((flow->seen[to] & seen) == seen))
		return;
	was_closed = flow_closed(flow);
	flow->seen[to] |= seen;
	flow->limit = idle_limit(flow, udp);
	if (!was_closed && flow_closed(flow))
		pkt->count->flows_closed++;
}

/* A packet of a flow, on its way. */
static __always_inline int carry(struct xdp_md *ctx, struct packet *pkt, struct flow *flow,
				 enum direction to)
{
	const __u32 tick = tick_now();
	struct way *way = &flow->way[to];
	int known = 1;

	if (unlikely_(tick - way->checked > HZ || (to == TO_NEXT && !(flow->used & FLOW_RESOLVED))))
		known = way_refresh(ctx, pkt, flow, to, tick);
	flow->last = tick;
	if (unlikely_(pkt->ip_len > way->mtu)) {
#if FAMILY == 4
		if (!(pkt->ip->frag_off & to_be16(IP_DONT_FRAGMENT))) {
			translate(pkt, flow, to, 1);
			return PASS(pkt, passed_too_big);
		}
#endif
		return too_big_reply(ctx, pkt, way->mtu);
	}
	flow_track(pkt, flow, to);
	if (unlikely_(!known)) {
		translate(pkt, flow, to, 1);
		return PASS(pkt, passed_unresolved);
	}
	if (to == TO_NEXT) {
		COUNT(pkt, forwarded_packets);
		pkt->count->forwarded_bytes += ctx->data_end - ctx->data;
	} else {
		COUNT(pkt, returned_packets);
		pkt->count->returned_bytes += ctx->data_end - ctx->data;
	}
	translate(pkt, flow, to, 0);
	return send(ctx, pkt, flow, to);
}

static __always_inline int from_client(struct xdp_md *ctx, struct packet *pkt)
{
	const int udp = pkt->protocol == IPPROTO_UDP;
	const struct tcphdr *tcp = &pkt->l4->tcp;
	struct flow *flow;
	int syn, opens;

	if (!pkt->l4->ports.source)
		return PASS(pkt, passed_not_ours);
	flow = flow_of_client(source_of(pkt->ip), pkt->l4->ports.source, udp);
	syn = !udp && tcp->syn && !tcp->ack && !tcp->rst && !tcp->fin;
	if (!flow && !udp && !syn)
		return PASS(pkt, passed_no_flow);
	if (*ttl_of(pkt->ip) <= 1)
		return PASS(pkt, passed_ttl);

	opens = !flow;
	if (flow && syn)
		opens = flow_closed(flow) || flow_expired(flow, tick_now()) || flow_outdated(flow);
	else if (flow && udp)
		opens = flow_outdated(flow);
	if (unlikely_(opens)) {
		flow = flow_open(ctx, pkt, flow);
		if (!flow)
			return XDP_DROP;
	}
	return carry(ctx, pkt, flow, TO_NEXT);
}

static __always_inline int from_next(struct xdp_md *ctx, struct packet *pkt)
{
	__u32 index = (__u32)from_be16(pkt->l4->ports.dest) - PORT_MIN;
	struct flow *flow;

	if (index >= PORT_COUNT)
		return PASS(pkt, passed_not_ours);
	flow = flow_at(index + (pkt->protocol == IPPROTO_UDP ? PORT_COUNT : 0));
	if (!flow || !flow->used || !flow->client_port ||
	    !addr_equal(&flow->out, destination_of(pkt->ip)) ||
	    !addr_equal(&flow->next, source_of(pkt->ip)) ||
	    flow->next_port != pkt->l4->ports.source)
		return PASS(pkt, passed_not_ours);
	if (*ttl_of(pkt->ip) <= 1)
		return PASS(pkt, passed_ttl);
	return carry(ctx, pkt, flow, TO_CLIENT);
}

static __always_inline int forward(struct xdp_md *ctx, struct packet *pkt)
{
	int verdict = parse(ctx, pkt);

	if (verdict)
		return verdict;
	if (unlikely_(pkt->protocol == IPPROTO_ERRORS))
		return icmp_error(ctx, pkt);
	if (pkt->l4->ports.dest == HOP_PORT && addr_is_hop(destination_of(pkt->ip)))
		return from_client(ctx, pkt);
	return from_next(ctx, pkt);
}

PROGRAM int hopbench_fwd(struct xdp_md *ctx)
{
	struct packet pkt = { .count = counters_here() };

	if (!pkt.count)
		return XDP_PASS;
	return TRACED(ctx, &pkt, forward(ctx, &pkt));
}

/* For the agent, which cannot read the tick counter: run by BPF_PROG_TEST_RUN. */
PROGRAM int hopbench_tick(struct xdp_md *ctx)
{
	return (int)tick_now();
}
