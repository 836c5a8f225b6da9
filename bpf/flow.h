/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Flows: what is remembered of each, and what state it is in.
 *
 * A flow lives in one place, flows[port - PORT_MIN] (those of UDP follow those
 * of TCP). There is no second entry of which an LRU could take one and leave
 * the other: the return path finds the flow by its port, the forward path by
 * where the client is at home (nat.h), and only a flow away from home has a
 * key in the hash table by_client, which does not evict either. What is no
 * longer in use is overwritten when its port is wanted.
 *
 * An established flow is written in place only: its last use and its flags.
 * The flags of each direction have a byte of their own, because two CPUs may
 * carry the two directions, and BCC has no atomics to rely on.
 */
#ifndef HOPBENCH_FLOW_H
#define HOPBENCH_FLOW_H

#include "address.h"
#include "shim.h"

enum direction {
	TO_NEXT,
	TO_CLIENT,
	DIRECTIONS,
};

/* What a packet needs on its way in one direction. */
struct way {
	__u8 mac[ETH_ALEN]; /* the neighbour's */
	__u16 mtu;          /* of IP packets */
	__u16 ip_change;    /* of the IP header's checksum, TTL included */
	__u16 l4_change;    /* of the TCP or UDP checksum */
	__u32 checked;      /* tick at which mac and mtu were looked up */
};

enum flow_used {
	FLOW_USED = 1,
	FLOW_RESOLVED = 2,       /* the next hop's MAC is known */
	FLOW_NEXT_BY_EGRESS = 4, /* which NIC leads there */
	FLOW_CLIENT_BY_EGRESS = 8,
	FLOW_CLAIMED = 16, /* being filled in: taken, but not to be found yet */
};

enum flow_seen {
	SEEN_PACKET = 1,
	SEEN_FIN = 2,
	SEEN_RST = 4,
};

/* One cache line for IPv4, two for IPv6. Addresses and ports in network order. */
struct flow {
	struct addr client;
	struct addr next;
	struct addr out;    /* this hop's, towards the next */
	__be16 client_port; /* 0: not to be found, left behind or being filled in */
	__be16 next_port;
	__be16 port;           /* this hop's, towards the next */
	__u8 used;             /* enum flow_used; 0 for a place that no flow ever had */
	__u8 seen[DIRECTIONS]; /* enum flow_seen, by the direction of the packets */
	__u8 displaced;        /* of the place: an endpoint at home here had to go elsewhere */
	__u16 generation;      /* of the place: which claim it was taken by */
	struct way way[DIRECTIONS];
	__u32 last;  /* tick of its last packet */
	__u32 limit; /* how many ticks it may be idle: idle_limit() of its state */
} __attribute__((aligned(64)));

#define PORT_COUNT (PORT_MAX - PORT_MIN + 1)
#define PLACES (2 * PORT_COUNT)

/* Mapped by the agent too, and so aligned to a page: no flow straddles cache lines. */
MAP(flows, ARRAY, __u32, struct flow, PLACES, BPF_F_MMAPABLE);

static __always_inline struct flow *flow_at(__u32 place)
{
	return bpf_map_lookup_elem(map_of(flows), &place);
}

/* The kernel's tick counter, modulo 2^32: costs a load, where a clock costs a call. */
static __always_inline __u32 tick_now(void)
{
	return (__u32)bpf_jiffies64();
}

/* A TCP flow is over when both sides said so, or either said it at once. */
static __always_inline int flow_closed(const struct flow *flow)
{
	const __u8 both = flow->seen[TO_NEXT] & flow->seen[TO_CLIENT];
	const __u8 any = flow->seen[TO_NEXT] | flow->seen[TO_CLIENT];

	return (both & SEEN_FIN) || (any & SEEN_RST);
}

/* How long a port rests after its flow: TCP_TIMEWAIT_LEN is 60 s (include/net/tcp.h). */
#define REST_TICKS (65 * HZ)

/* How long a flow may be idle before it loses its port, in ticks. */
static __always_inline __u32 idle_limit(const struct flow *flow, int udp)
{
	const __u8 any = flow->seen[TO_NEXT] | flow->seen[TO_CLIENT];

	if (flow_closed(flow)) /* or left behind, whatever the protocol */
		return REST_TICKS;
	if (udp) /* nf_conntrack's 30 s; RFC 4787, REQ-5: no less than 2 min */
		return (flow->seen[TO_CLIENT] ? 180 : 30) * HZ;
	if (!flow->seen[TO_CLIENT]) /* nf_conntrack's SYN_RECV */
		return 60 * HZ;
	/* RFC 5382, REQ-5: 4 min in transition, 2 h 4 min established */
	return ((any & SEEN_FIN) ? 240 : 7440) * HZ;
}

static __always_inline int flow_expired(const struct flow *flow, __u32 tick)
{
	/* Signed: another CPU may have used it in a tick that has not come here yet. */
	return (__s32)(tick - flow->last) > (__s32)flow->limit;
}

static __always_inline int flow_is_of(const struct flow *flow, const struct addr *client,
				      __be16 port)
{
	return flow->used && flow->client_port == port && addr_equal(&flow->client, client);
}

#endif
