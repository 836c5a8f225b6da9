// SPDX-License-Identifier: GPL-2.0-only
/*
 * Several forwarders on one NIC: hands a packet to the one whose port it is for.
 *
 * `lo` takes one XDP program and the chain on it has one for each forwarder
 * (forwarder.c, compiled with LOOPBACK). Forwarder i listens on FIRST_PORT + i,
 * and its NAT has ports of its own: NAT_COUNT from NAT_MIN + i * NAT_COUNT on.
 */
#include "shim.h"

MAP(forwarders, PROG_ARRAY, __u32, __u32, FORWARDERS, 0);

/* Which forwarder a port belongs to; FORWARDERS or more for none. */
static __always_inline __u32 forwarder_of(__u32 port)
{
	if (port - FIRST_PORT < FORWARDERS)
		return port - FIRST_PORT;
	if (port < NAT_MIN)
		return FORWARDERS;
	return (port - NAT_MIN) / NAT_COUNT;
}

PROGRAM int hopbench_loopback(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct tcphdr *tcp = (void *)(ip + 1);
	__u32 index;

	/* The forwarders check the rest; nothing on `lo` sends options. */
	if ((void *)(tcp + 1) > end || eth->h_proto != to_be16(ETH_P_IP) || ip->ihl != 5 ||
	    ip->protocol != IPPROTO_TCP)
		return XDP_PASS;
	index = forwarder_of(from_be16(tcp->dest));
	if (index < FORWARDERS)
		tail_call(ctx, map_of(forwarders), index);
	/* Nobody's, or a forwarder that takes no part. */
	return XDP_PASS;
}
