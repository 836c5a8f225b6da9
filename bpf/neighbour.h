/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where to send: MAC address, MTU and NIC, from the kernel's own tables.
 */
#ifndef HOPBENCH_NEIGHBOUR_H
#define HOPBENCH_NEIGHBOUR_H

#include "flow.h"
#include "host.h"
#include "parse.h"

/* include/linux/socket.h; the same on every architecture. */
#define AF_FAMILY (FAMILY == 4 ? 2 : 10)
#define MTU_UNKNOWN 0xffff

/*
 * A question to the kernel, and its answer. Answers with a MAC are good for a
 * second: a chain has one next hop and few clients, and two lookups would cost
 * more than all the rest of a new flow. Per CPU, so that none is read while it
 * is written. In a map and not on the stack also because the verifier then
 * need not follow every kind of answer through the rest of the program.
 */
struct neighbour {
	struct addr from;
	struct addr to;
	__u32 checked; /* tick at which the kernel was asked */
	__u8 mac[ETH_ALEN];
	__u16 mtu;     /* MTU_UNKNOWN while the MAC is unknown */
	__u8 protocol; /* 0 for an entry that was never used */
	__u8 known;
	__u8 by_egress;
	__u8 zero;
	__u32 place; /* scratch of port_claim() */
};

/* For each direction, by address. */
#define NEIGHBOURS 16
MAP(neighbours, PERCPU_ARRAY, __u32, struct neighbour, DIRECTIONS *NEIGHBOURS, 0);

static __always_inline struct neighbour *neighbour_slot(const struct addr *to, enum direction way)
{
	__u32 word = to->word[ADDR_WORDS - 1];
	__u32 slot = (word ^ (word >> 24)) % NEIGHBOURS + way * NEIGHBOURS;

	return bpf_map_lookup_elem(map_of(neighbours), &slot);
}

/*
 * Look up the way from one of the hop's addresses to a neighbour's. NULL when
 * there is none by a NIC of ours; `known` tells whether the stack has the
 * neighbour's MAC address. dev: the NIC by which such packets come in.
 */
static __always_inline struct neighbour *neighbour_ask(struct xdp_md *ctx, const struct addr *from,
						       const struct addr *to, enum direction way,
						       __u8 protocol, __u32 tick)
{
	const struct host *host = host_value();
	struct neighbour *found = neighbour_slot(to, way);
	struct bpf_fib_lookup fib = {
		.family = AF_FAMILY,
		.l4_protocol = protocol,
		.ifindex = EGRESS && way == TO_CLIENT ? host->egress.dev : host->data.dev,
		/* Not 0, so that the kernel reports the MTU; we compare ourselves. */
		.tot_len = 1,
	};
	long result;

	if (!found)
		return NULL;
#ifdef LOOPBACK
	/* bpf_fib_lookup() forwards to no local address; on `lo` there is nobody else to find. */
	*found = (struct neighbour){ .checked = tick, .mtu = MTU_UNKNOWN, .known = 1 };
	return found;
#endif
	if (likely_(found->known && found->protocol == protocol && addr_equal(&found->from, from) &&
		    addr_equal(&found->to, to) && tick - found->checked <= HZ))
		return found;
#if FAMILY == 4
	fib.ipv4_src = from->word[0];
	fib.ipv4_dst = to->word[0];
#else
	__builtin_memcpy(fib.ipv6_src, from, sizeof(*from));
	__builtin_memcpy(fib.ipv6_dst, to, sizeof(*to));
#endif
	found->known = 0;
	result = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return NULL;
	if (!dev_is_ours(fib.ifindex))
		return NULL;
	found->from = *from;
	found->to = *to;
	found->checked = tick;
	found->mtu = MTU_UNKNOWN;
	found->protocol = protocol;
	found->by_egress = EGRESS && fib.ifindex == host->egress.dev;
	if (result == BPF_FIB_LKUP_RET_SUCCESS) {
		found->known = 1;
		found->mtu = fib.tot_len; /* mtu_result, in a union that older headers lack */
		__builtin_memcpy(found->mac, fib.dmac, ETH_ALEN);
	}
	return found;
}

static __always_inline struct neighbour *
neighbour_client(struct xdp_md *ctx, const struct addr *client, __u8 protocol, __u32 tick)
{
	const struct addr hop = hop_addr();

	return neighbour_ask(ctx, &hop, client, TO_CLIENT, protocol, tick);
}

/*
 * Look a flow's neighbour up again, for one direction. Writes the MAC while
 * another CPU may read it: a frame with half of each is as lost as one that
 * still went to the old address. Returns whether the neighbour is known.
 */
static __always_inline int way_refresh(struct xdp_md *ctx, struct packet *pkt, struct flow *flow,
				       enum direction to, __u32 tick)
{
	const __u8 egress = to == TO_NEXT ? FLOW_NEXT_BY_EGRESS : FLOW_CLIENT_BY_EGRESS;
	struct way *way = &flow->way[to];
	struct neighbour *found;

	way->checked = tick;
	if (to == TO_NEXT)
		found = neighbour_ask(ctx, &flow->out, &flow->next, to, pkt->protocol, tick);
	else
		found = neighbour_client(ctx, &flow->client, pkt->protocol, tick);
	if (!found) /* goes on as it was; the stack would not know better */
		return to == TO_CLIENT || (flow->used & FLOW_RESOLVED);
	if (!found->known)
		return 0;
	__builtin_memcpy(way->mac, found->mac, ETH_ALEN);
	way->mtu = found->mtu;
	way->checked = found->checked;
	flow->used = (flow->used & ~egress) | (found->by_egress ? egress : 0) |
		     (to == TO_NEXT ? FLOW_RESOLVED : 0);
	return 1;
}

/* Is the neighbour on a flow's way known, by a lookup of this second or by asking now? */
static __always_inline int way_known(struct xdp_md *ctx, struct packet *pkt, struct flow *flow,
				     enum direction to, __u32 tick)
{
	if (likely_(tick - flow->way[to].checked <= HZ &&
		    (to == TO_CLIENT || (flow->used & FLOW_RESOLVED))))
		return 1;
	return way_refresh(ctx, pkt, flow, to, tick);
}

#endif
