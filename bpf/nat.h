/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Ports: which client endpoint gets which source port of this hop.
 *
 * TIME_WAIT. The side that closes first, here the server, keeps (hop, port)
 * for 60 s and refuses a new connection from it unless the new SYN's sequence
 * number or timestamp lies ahead (RFC 6191). That holds between connections
 * of one client endpoint, because one kernel made both, and it does not hold
 * between different endpoints. Hence policy affine: an endpoint comes to the
 * same port every time, also after this program was loaded anew. Its home is
 * its own port where that lies in the range, else a fixed function of address
 * and port that maps no two of one client's neighbouring ports together. Only
 * when that place is taken does it go elsewhere, and by_client remembers where.
 *
 * Policy fresh: its own port, else a random one, and another one after a flow
 * has closed.
 *
 * In both a port goes to another endpoint only after its flow has expired.
 *
 * Claims. Two CPUs may want one port at once. Inserting (place, generation + 1)
 * with BPF_NOEXIST is the claim: of those who saw one generation exactly one
 * succeeds, and the next claim needs the next number. The claim stays as long
 * as the flow, and goes when the next one was made.
 */
#ifndef HOPBENCH_NAT_H
#define HOPBENCH_NAT_H

#include "endpoint.h"
#include "flow.h"
#include "parse.h"

/* Cilium found that more tries find hardly any more ports (cilium#37389). */
#define PORT_TRIES 32
/* A prime far above a client's stride, so that one that has to yield does not
 * take the place of its neighbour. */
#define PORT_STEP 7919
/* One for each place, and some that are made before the one they replace is deleted. */
#define CLAIMS (PLACES + 1024)
#define NO_PLACE 0xffffffff

struct claim {
	__u32 place;
	__u32 generation;
};

MAP(claims, HASH, struct claim, __u8, CLAIMS, 0);

/* Never 0, which is the generation of a place that nobody ever had. */
static __always_inline __u16 generation_after(__u16 generation)
{
	return generation == 0xffff ? 1 : generation + 1;
}

/*
 * Claim a place as it was when `generation` was read: 0 for the one CPU that
 * succeeds, else counted. Whoever did takes the place and then says so.
 */
static __always_inline int place_claim(struct packet *pkt, __u32 place, __u16 generation)
{
	struct claim claim = { .place = place, .generation = generation_after(generation) };
	__u8 one = 1;

	if (!bpf_map_update_elem(map_of(claims), &claim, &one, BPF_NOEXIST))
		return 0;
	COUNT(pkt, dropped_claim_lost);
	return -1;
}

/* The place is taken: from here on another claim may be made. */
static __always_inline void place_claimed(struct flow *flow, __u32 place, __u16 generation)
{
	struct claim last = { .place = place, .generation = generation };

	barrier_();
	flow->generation = generation_after(generation);
	if (generation)
		bpf_map_delete_elem(map_of(claims), &last);
}

/*
 * Of an address. Knuth's multiplicative hash keeps clients apart; adding their
 * ports keeps any PORT_COUNT successive ports of one client distinct.
 */
static __always_inline __u32 addr_spread(const struct addr *addr)
{
	__u32 words = 0;
	int i;

#pragma unroll
	for (i = 0; i < ADDR_WORDS; i++)
		words ^= addr->word[i];
	return (words * 2654435761u) >> 8;
}

/* Where an endpoint is at home: a function of the endpoint, or NO_PLACE. */
static __always_inline __u32 home_of(const struct addr *addr, __be16 client_port, int udp)
{
	const __u32 port = from_be16(client_port);
	const __u32 base = udp ? PORT_COUNT : 0;

	if (port >= PORT_MIN && port <= PORT_MAX)
		return base + port - PORT_MIN;
	if (FRESH)
		return NO_PLACE;
	return base + (port + addr_spread(addr)) % PORT_COUNT;
}

static __always_inline struct flow *flow_of_client(const struct addr *addr, __be16 port, int udp)
{
	struct flow *flow = flow_at(home_of(addr, port, udp));
	struct endpoint end;
	__u32 *place;

	if (likely_(flow && flow_is_of(flow, addr, port)))
		return flow;
	if (flow && !flow->displaced)
		return NULL;
	end = endpoint_of(addr, port, udp);
	place = endpoint_lookup(&end);
	if (!place)
		return NULL;
	/* Its place may be on the way to another endpoint. */
	flow = flow_at(*place);
	return flow && flow_is_of(flow, addr, port) ? flow : NULL;
}

/* Where a flow lives. */
static __always_inline __u32 place_of(const struct flow *flow, int udp)
{
	return (udp ? PORT_COUNT : 0) + from_be16(flow->port) - PORT_MIN;
}

/* Take by_client's key from a flow that loses its client. */
static __always_inline void flow_unlink(const struct flow *flow, __u32 place, int udp)
{
	struct endpoint end;

	if (!flow->client_port || home_of(&flow->client, flow->client_port, udp) == place)
		return;
	end = endpoint_of(&flow->client, flow->client_port, udp);
	endpoint_delete(&end);
}

static __always_inline int place_free(const struct flow *flow, __u32 tick)
{
	return !flow->used || flow_expired(flow, tick);
}

/* The first free place of those to be tried for an endpoint, or NO_PLACE. */
static __always_inline __u32 place_find(struct packet *pkt, const struct endpoint *end, __u32 home,
					__u32 tick)
{
	const int udp = end->udp;
	const __u32 base = udp ? PORT_COUNT : 0;
	__u32 place = home;
	int i;

	if (home == NO_PLACE)
		place = base + bpf_get_prandom_u32() % PORT_COUNT;
#pragma unroll
	for (i = 0; i < PORT_TRIES; i++) {
		struct flow *flow = flow_at(place);

		if (!flow)
			return NO_PLACE;
		/* On HOP_PORT a returning packet would look like a client's. */
		if (to_be16(PORT_MIN + place - base) != HOP_PORT && place_free(flow, tick))
			return place;
		pkt->count->port_collisions++;
		place = base + (place - base + PORT_STEP) % PORT_COUNT;
	}
	return NO_PLACE;
}

/* Have by_client say where an endpoint is from now on; 0, or counted. */
static __always_inline int endpoint_move(struct packet *pkt, const struct endpoint *end,
					 __u32 place, __u32 home, int was_away)
{
	struct flow *at_home = flow_at(home);

	if (place == home) {
		if (was_away)
			endpoint_delete(end);
		return 0;
	}
	if (at_home)
		at_home->displaced = 1;
	if (!was_away)
		return endpoint_insert(pkt, end, place);
	if (!bpf_map_update_elem(map_of(by_client), end, &place, BPF_ANY))
		return 0;
	COUNT(pkt, dropped_table_full);
	return -1;
}

/*
 * The place found, by way of a map: the verifier forgets at which of the tries
 * it was, and follows the rest of the program once instead of 32 times.
 */
static __always_inline __u32 forget(__u32 place, __u32 *scratch)
{
	*(volatile __u32 *)scratch = place;
	return *(volatile __u32 *)scratch;
}

/*
 * Claim a port for an endpoint; the caller fills in the flow and publishes it.
 * old: under policy fresh, the flow it has until now, whose claim is the
 * caller's. NULL: drop, counted, and the old flow is as it was.
 */
static __always_inline struct flow *port_claim(struct packet *pkt, const struct endpoint *end,
					       const struct flow *old, __u32 tick, __u32 *scratch)
{
	const int udp = end->udp;
	const __u32 home = home_of(&end->addr, end->port, udp);
	const __u32 place = forget(place_find(pkt, end, home, tick), scratch);
	struct flow *flow = flow_at(place);
	int was_away = old && place_of(old, udp) != home;
	__u16 generation;

	if (!flow) {
		COUNT(pkt, dropped_no_port);
		return NULL;
	}
	generation = flow->generation;
	barrier_();
	/* Free before, and still as it was: else another CPU was faster. */
	if (!place_free(flow, tick)) {
		COUNT(pkt, dropped_claim_lost);
		return NULL;
	}
	if (place_claim(pkt, place, generation))
		return NULL;
	if (flow->used) {
		if (flow != old && !flow_closed(flow))
			pkt->count->flows_evicted++;
		flow_unlink(flow, place, udp);
		was_away = was_away && flow != old;
	}
	flow->client_port = 0;
	flow->last = tick;
	flow->limit = REST_TICKS;
	flow->used = FLOW_CLAIMED;
	place_claimed(flow, place, generation);
	if (endpoint_move(pkt, end, place, home, was_away)) {
		flow->used = 0;
		return NULL;
	}
	flow->port = to_be16(PORT_MIN + place - (udp ? PORT_COUNT : 0));
	return flow;
}

/* The client has another flow now: this one's port rests until it has expired. */
static __always_inline void flow_leave(struct flow *flow, int udp)
{
	flow->client_port = 0;
	flow->seen[TO_CLIENT] |= SEEN_RST;
	flow->limit = idle_limit(flow, udp);
}

#endif
