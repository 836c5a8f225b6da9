/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a frame to its TCP header, with every bound checked once.
 *
 * Whatever is not a whole, unfragmented TCP segment over IPv4 is left to the
 * stack: parse_tcp() then returns the reason and the caller passes the frame.
 */
#ifndef HOPBENCH_PARSE_H
#define HOPBENCH_PARSE_H

#include "shim.h"

#define IP_MORE_FRAGMENTS 0x2000
#define IP_FRAGMENT_OFFSET 0x1fff

/* Pointers into the frame; valid until the program changes its bounds. */
struct segment {
	struct ethhdr *eth;
	struct iphdr *ip;
	struct tcphdr *tcp;
};

enum parse_result {
	PARSED,
	PARSE_NOT_IPV4,
	PARSE_NOT_TCP,
	PARSE_FRAGMENT,
	PARSE_TRUNCATED,
};

static __always_inline enum parse_result parse_tcp(struct xdp_md *ctx, struct segment *seg)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct tcphdr *tcp;
	__u32 header_len;

	if ((void *)(eth + 1) > end)
		return PARSE_TRUNCATED;
	/* VLAN-tagged frames end here too: the data network is untagged. */
	if (eth->h_proto != to_be16(ETH_P_IP))
		return PARSE_NOT_IPV4;
	/* A group address (RFC 894): not sent to this host alone. */
	if (eth->h_dest[0] & 1)
		return PARSE_NOT_IPV4;

	if ((void *)(ip + 1) > end)
		return PARSE_TRUNCATED;
	if (ip->version != 4)
		return PARSE_NOT_IPV4;
	if (ip->protocol != IPPROTO_TCP)
		return PARSE_NOT_TCP;
	/* Only the first fragment has ports, and the stack reassembles. */
	if (ip->frag_off & to_be16(IP_MORE_FRAGMENTS | IP_FRAGMENT_OFFSET))
		return PARSE_FRAGMENT;

	header_len = ip->ihl * 4;
	if (header_len < sizeof(*ip))
		return PARSE_TRUNCATED;
	tcp = (void *)ip + header_len;
	if ((void *)(tcp + 1) > end)
		return PARSE_TRUNCATED;

	seg->eth = eth;
	seg->ip = ip;
	seg->tcp = tcp;
	return PARSED;
}

#endif
