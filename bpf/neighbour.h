/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Where to send: MAC address, MTU and NIC, from the kernel's own tables.
 */
#ifndef HOPBENCH_NEIGHBOUR_H
#define HOPBENCH_NEIGHBOUR_H

#include "flow.h"
#include "parse.h"

/* include/linux/socket.h; the same on every architecture. */
#define AF_FAMILY (FAMILY == 4 ? 2 : 10)
#define MTU_UNKNOWN 0xffff

/* The hop's own MAC address on [0] the data and [1] the egress network. */
struct nic {
	__u8 mac[ETH_ALEN];
	__u16 zero;
};

MAP(nics, ARRAY, __u32, struct nic, 2, 0);

struct neighbour {
	__u8 mac[ETH_ALEN];
	__u16 mtu; /* MTU_UNKNOWN while the MAC is unknown */
	__u8 known;
	__u8 by_egress;
	__u16 zero;
	__u32 checked; /* tick at which the kernel was asked */
};

/* An answer, and the question it belongs to. */
struct remembered {
	struct addr from;
	struct addr to;
	__u32 protocol; /* 0 for an entry that was never used */
	struct neighbour answer;
};

/*
 * What the kernel answered within the last second. A chain has one next hop
 * and few clients: two lookups would cost more than all the rest of a new
 * flow. Per CPU, so that no entry is read while it is written.
 */
#define REMEMBERED 16
MAP(remembered, PERCPU_ARRAY, __u32, struct remembered, REMEMBERED, 0);

static __always_inline struct nic *nic_of(__u32 by_egress)
{
	return bpf_map_lookup_elem(map_of(nics), &by_egress);
}

static __always_inline struct remembered *recall(const struct addr *from, const struct addr *to)
{
	__u32 words = from->word[ADDR_WORDS - 1] ^ to->word[ADDR_WORDS - 1];
	__u32 slot = (words ^ (words >> 24)) % REMEMBERED;

	return bpf_map_lookup_elem(map_of(remembered), &slot);
}

/*
 * Look up the way from one of the hop's addresses to a neighbour's. 0 when
 * there is one, by a NIC of ours; known tells whether the stack has the
 * neighbour's address.
 */
static __always_inline int neighbour_ask(struct xdp_md *ctx, const struct addr *from,
					 const struct addr *to, __u8 protocol, __u32 dev,
					 __u32 tick, struct neighbour *found)
{
	struct remembered *slot = recall(from, to);
	struct bpf_fib_lookup fib = {
		.family = AF_FAMILY,
		.l4_protocol = protocol,
		.ifindex = dev,
		/* Not 0, so that the kernel reports the MTU; we compare ourselves. */
		.tot_len = 1,
	};
	long result;
	struct nic *nic;

	if (likely_(slot && slot->protocol == protocol && addr_equal(&slot->from, from) &&
		    addr_equal(&slot->to, to) && tick - slot->answer.checked <= HZ)) {
		*found = slot->answer;
		return 0;
	}
#if FAMILY == 4
	fib.ipv4_src = from->word[0];
	fib.ipv4_dst = to->word[0];
#else
	__builtin_memcpy(fib.ipv6_src, from, sizeof(*from));
	__builtin_memcpy(fib.ipv6_dst, to, sizeof(*to));
#endif
	result = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	if (result != BPF_FIB_LKUP_RET_SUCCESS && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return -1;
	if (fib.ifindex != DATA_DEV && (!EGRESS_DEV || fib.ifindex != EGRESS_DEV))
		return -1;
	found->by_egress = EGRESS_DEV && fib.ifindex == EGRESS_DEV;
	found->known = result == BPF_FIB_LKUP_RET_SUCCESS;
	found->mtu = MTU_UNKNOWN;
	found->checked = tick;
	if (!found->known)
		return 0;
	found->mtu = fib.tot_len; /* mtu_result, in a union that older headers lack */
	__builtin_memcpy(found->mac, fib.dmac, ETH_ALEN);
#if EGRESS_DEV
	nic = nic_of(found->by_egress);
	if (nic)
		__builtin_memcpy(nic->mac, fib.smac, ETH_ALEN);
#endif
	if (slot) {
		slot->from = *from;
		slot->to = *to;
		slot->protocol = protocol;
		slot->answer = *found;
	}
	return 0;
}

/* The way to the next hop, from where its packets come in: the data network. */
static __always_inline int neighbour_next(struct xdp_md *ctx, const struct addr *out,
					  const struct addr *next, __u8 protocol, __u32 tick,
					  struct neighbour *found)
{
	return neighbour_ask(ctx, out, next, protocol, DATA_DEV, tick, found);
}

static __always_inline int neighbour_client(struct xdp_md *ctx, const struct addr *client,
					    __u8 protocol, __u32 tick, struct neighbour *found)
{
	const struct addr hop = hop_addr();

	return neighbour_ask(ctx, &hop, client, protocol, EGRESS_DEV ?: DATA_DEV, tick, found);
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
	struct neighbour found = {};
	int failed;

	way->checked = tick;
	failed = to == TO_NEXT ?
			 neighbour_next(ctx, &flow->out, &flow->next, pkt->protocol, tick, &found) :
			 neighbour_client(ctx, &flow->client, pkt->protocol, tick, &found);
	if (failed) /* goes on as it was; the stack would not know better */
		return to == TO_CLIENT || (flow->used & FLOW_RESOLVED);
	if (!found.known)
		return 0;
	__builtin_memcpy(way->mac, found.mac, ETH_ALEN);
	way->mtu = found.mtu;
	way->checked = found.checked;
	flow->used = (flow->used & ~egress) | (found.by_egress ? egress : 0) |
		     (to == TO_NEXT ? FLOW_RESOLVED : 0);
	return 1;
}

#endif
