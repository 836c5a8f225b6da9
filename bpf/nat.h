/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Flows: which client endpoint owns which source port of this hop.
 *
 * A flow lives in one place, flows[port - PORT_MIN]. The return path finds it
 * by the port alone. The forward path looks where the client endpoint is at
 * home, a function of the endpoint, and finds it there unless another had the
 * place first; only such displaced flows are in the hash table by_client. So
 * an established flow costs no hashing either way, and as neither table
 * evicts, no half of a living flow can vanish.
 *
 * Ports and TIME_WAIT. The side that closes first, here the server, keeps
 * (hop, port) for 60 s and refuses a new connection from it unless the new
 * SYN's sequence number or timestamp lies ahead (RFC 6191). That holds between
 * connections of one client endpoint, because one kernel made both, and it
 * does not hold between different endpoints. Hence the rules:
 *  - a client endpoint comes to the same port every time, also after this
 *    program was loaded anew: its own port where that lies in the range, else
 *    a fixed function of address and port that maps no two of one client's
 *    neighbouring ports together;
 *  - a port goes to another endpoint only TIME_WAIT after its flow closed;
 *  - when no port tried allows that, the SYN is dropped and counted.
 *
 * Claims. Two CPUs may want one port at once. A claim is the insertion of
 * (port, generation + 1) with BPF_NOEXIST: of those who saw the same
 * generation exactly one succeeds, and the next claim needs the next number.
 * Who loses at an endpoint's home lets the packet go: it may be the same SYN
 * on another CPU, which must not get a second port.
 */
#ifndef HOPBENCH_NAT_H
#define HOPBENCH_NAT_H

#include "checksum.h"
#include "counters.h"
#include "shim.h"

#define NSEC_PER_SEC 1000000000ULL

/* Linux: TCP_TIMEWAIT_LEN is 60 s (include/net/tcp.h); the rest is slack. */
#define TIME_WAIT_NS (65 * NSEC_PER_SEC)
/* An open flow that was silent this long may lose its port to another. */
#define IDLE_NS (3600 * NSEC_PER_SEC)

/* Cilium found that more tries find hardly any more ports (cilium#37389). */
#define PORT_TRIES 32
/* A prime far above a client's stride, so that one that has to yield does not
 * take the place of its neighbour. */
#define PORT_STEP 7919

#define PORT_COUNT (PORT_MAX - PORT_MIN + 1)

enum flow_flags {
	FLOW_FIN_CLIENT = 1,
	FLOW_FIN_SERVER = 2,
	FLOW_RST = 4,
};

/* Addresses and ports in network order; 48 octets, within one cache line or two. */
struct flow {
	__be32 client_ip;
	__be32 next_ip;
	__be16 client_port;
	__be16 next_port;
	__be16 port; /* this hop's source port towards the next hop */
	__u8 flags;
	__u8 used; /* 0 until the first claim */
	__u8 client_mac[ETH_ALEN];
	__u8 next_mac[ETH_ALEN];
	__u16 forward_ip_change;
	__u16 forward_tcp_change;
	__u16 return_ip_change;
	__u16 return_tcp_change;
	__u32 generation;
	__u64 seen_ns; /* coarse monotonic clock */
};

struct endpoint {
	__be32 ip;
	__be16 port;
	__u16 zero;
};

struct claim {
	__u32 index;
	__u32 generation;
};

BPF_TABLE("array", __u32, struct flow, flows, PORT_COUNT);
BPF_TABLE("hash", struct endpoint, __u32, by_client, PORT_COUNT);
/* Twice, because a new claim is made before the one it replaces is deleted. */
BPF_TABLE("hash", struct claim, __u8, claims, 2 * PORT_COUNT);

static __always_inline struct flow *flow_at(__u32 index)
{
	return flows.lookup(&index);
}

static __always_inline __u32 *endpoint_lookup(__be32 ip, __be16 port)
{
	struct endpoint key = { .ip = ip, .port = port };

	return by_client.lookup(&key);
}

/* 0 when this endpoint was not displaced before. */
static __always_inline int endpoint_insert(__be32 ip, __be16 port, __u32 index)
{
	struct endpoint key = { .ip = ip, .port = port };

	return by_client.insert(&key, &index);
}

static __always_inline void endpoint_delete(__be32 ip, __be16 port)
{
	struct endpoint key = { .ip = ip, .port = port };

	by_client.delete(&key);
}

/* 0 for exactly one caller per index and generation. */
static __always_inline int claim_insert(__u32 index, __u32 generation)
{
	struct claim key = { .index = index, .generation = generation };
	__u8 one = 1;

	return claims.insert(&key, &one);
}

static __always_inline void claim_delete(__u32 index, __u32 generation)
{
	struct claim key = { .index = index, .generation = generation };

	claims.delete(&key);
}

static __always_inline int flow_closed(const struct flow *flow)
{
	const __u8 both = FLOW_FIN_CLIENT | FLOW_FIN_SERVER;

	return (flow->flags & FLOW_RST) || (flow->flags & both) == both;
}

/* May another endpoint have this flow's port? */
static __always_inline int flow_yields(const struct flow *flow, __u64 now)
{
	if (!flow->used)
		return 1;
	return now - flow->seen_ns > (flow_closed(flow) ? TIME_WAIT_NS : IDLE_NS);
}

/* Where an endpoint looks first: a function of the endpoint and nothing else. */
static __always_inline __u32 home_index(__be32 ip, __be16 client_port)
{
	__u32 port = from_be16(client_port);
	__u32 spread;

	if (port >= PORT_MIN && port <= PORT_MAX)
		return port - PORT_MIN;
	/* Knuth's multiplicative hash keeps clients apart; adding the port
	 * keeps any PORT_COUNT successive ports of one client distinct. */
	spread = (ip * 2654435761u) >> 8;
	return (port + spread) % PORT_COUNT;
}

static __always_inline int flow_is_of(const struct flow *flow, __be32 ip, __be16 port)
{
	return flow->used && flow->client_ip == ip && flow->client_port == port;
}

static __always_inline struct flow *flow_of_client(__be32 ip, __be16 port)
{
	struct flow *flow = flow_at(home_index(ip, port));
	__u32 *index;

	if (likely_(flow && flow_is_of(flow, ip, port)))
		return flow;
	index = endpoint_lookup(ip, port);
	if (!index)
		return NULL;
	/* Its place may be on the way to another endpoint. */
	flow = flow_at(*index);
	return flow && flow_is_of(flow, ip, port) ? flow : NULL;
}

/* Let go of the flow that has a place until now. */
static __always_inline void flow_forget(const struct flow *flow, __u32 index)
{
	if (!flow->used)
		return;
	if (home_index(flow->client_ip, flow->client_port) != index)
		endpoint_delete(flow->client_ip, flow->client_port);
	claim_delete(index, flow->generation);
}

/*
 * Claim a port for an endpoint that has none. Returns the flow, to be
 * described and then published by its endpoint, or NULL.
 */
static __always_inline struct flow *port_claim(__be32 ip, __be16 client_port, __u64 now,
					       struct counters *count)
{
	__u32 index = home_index(ip, client_port);
	int i;

	for (i = 0; i < PORT_TRIES; i++) {
		struct flow *flow = flow_at(index);

		if (!flow)
			return NULL;
		/* On HOP_PORT a returning packet would look like a client's. */
		if (to_be16(PORT_MIN + index) != HOP_PORT && flow_yields(flow, now)) {
			if (!claim_insert(index, flow->generation + 1)) {
				flow_forget(flow, index);
				if (i && endpoint_insert(ip, client_port, index)) {
					claim_delete(index, flow->generation + 1);
					flow->used = 0;
					return NULL;
				}
				flow->used = 0;
				flow->generation++;
				flow->port = to_be16(PORT_MIN + index);
				return flow;
			}
			if (!i)
				return NULL;
		}
		count->port_collisions++;
		index = (index + PORT_STEP) % PORT_COUNT;
	}
	return NULL;
}

/*
 * Fill in what the endpoints determine, and publish: the client's endpoint and
 * `used` come last, because lookups go by them.
 */
static __always_inline void flow_describe(struct flow *flow, __be32 client_ip, __be16 client_port,
					  __be32 next_ip, __be16 next_port)
{
	/* The hop's own address stands in both headers and cancels out. */
	__u64 ip = csum_change32(client_ip, next_ip);
	__u64 ip_back = csum_change32(next_ip, client_ip);

	flow->next_ip = next_ip;
	flow->next_port = next_port;
	flow->forward_ip_change = csum_fold_(ip + CSUM_TTL_MINUS_ONE);
	flow->return_ip_change = csum_fold_(ip_back + CSUM_TTL_MINUS_ONE);
	flow->forward_tcp_change = csum_fold_(ip + csum_change16(client_port, flow->port) +
					      csum_change16(HOP_PORT, next_port));
	flow->return_tcp_change = csum_fold_(ip_back + csum_change16(next_port, HOP_PORT) +
					     csum_change16(flow->port, client_port));
	barrier_();
	flow->client_ip = client_ip;
	flow->client_port = client_port;
	barrier_();
	flow->used = 1;
}

#endif
