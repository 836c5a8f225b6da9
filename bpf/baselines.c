// SPDX-License-Identifier: GPL-2.0-only
/*
 * What `bench datapath` measures the forwarder beside, and what sends frames to
 * it. steps.c has the single steps of which a forwarder may be made.
 */
#include "address.h"
#include "checksum.h"
#include "shim.h"

/* Whole words, so that a frame is written by a few instructions. */
#define FRAME_LEN (FAMILY == 4 ? 64 : 80)
#define AF_FAMILY (FAMILY == 4 ? 2 : 10) /* include/linux/socket.h */

/* A frame, and which of the source ports its copies get, one after the other. */
struct load {
	__u64 frame[FRAME_LEN / sizeof(__u64)];
	__u32 first;
	__u32 count;
	__u32 next; /* how many of them it is on from the first */
	__u32 zero;
};

MAP(load, ARRAY, __u32, struct load, 1, 0);
/* In network order; the agent maps them, and so they are as far apart as an array has them. */
MAP(sources, ARRAY, __u32, __u64, SOURCES, BPF_F_MMAPABLE);

static __always_inline struct load *load_now(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(map_of(load), &zero);
}

static __always_inline __u64 *source_at(__u32 index)
{
	return bpf_map_lookup_elem(map_of(sources), &index);
}

/*
 * Run for live frames that seem to come in by the far end of a veth: XDP_TX
 * sends them out of it, to the NIC that is measured. The kernel uses a frame
 * again with whatever the program there has left in it, so all of it is
 * written each time. The TCP checksum is that of the first port: what forwards
 * updates it by the difference, which takes the same time.
 */
PROGRAM int hopbench_send(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct udphdr *ports = data + sizeof(struct ethhdr) + sizeof(ip_header);
	struct load *load = load_now();
	__u64 *words = data, *source;
	int i;

	if (!load || data + FRAME_LEN > end)
		return XDP_ABORTED;
	source = source_at(load->first + load->next);
	if (!source)
		return XDP_ABORTED;
#pragma unroll
	for (i = 0; i < FRAME_LEN / (int)sizeof(__u64); i++)
		words[i] = load->frame[i];
	ports->source = (__be16)*source;
	load->next = load->next + 1 < load->count ? load->next + 1 : 0;
	return XDP_TX;
}

/* At the far end, where XDP_TX needs a program to receive: what comes back ends here. */
PROGRAM int hopbench_sink(struct xdp_md *ctx)
{
	return XDP_DROP;
}

/* Nothing at all: what running a program costs by itself, the clock around it included. */
PROGRAM int hopbench_empty(struct xdp_md *ctx)
{
	return XDP_DROP;
}

/* The least that sends a packet on: no forwarder can cost less. */
PROGRAM int hopbench_reflect(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	__u16 *words = (void *)eth; /* its members are packed, and would go octet by octet */
	__u16 word;
	int i;

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
#pragma unroll
	for (i = 0; i < ETH_ALEN / 2; i++) {
		word = words[i];
		words[i] = words[i + ETH_ALEN / 2];
		words[i + ETH_ALEN / 2] = word;
	}
	return XDP_TX;
}

static __always_inline void route_question(struct bpf_fib_lookup *fib, ip_header *ip)
{
	fib->family = AF_FAMILY;
#if FAMILY == 4
	fib->tos = ip->tos;
	fib->l4_protocol = ip->protocol;
	fib->tot_len = from_be16(ip->tot_len);
	fib->ipv4_src = ip->saddr;
	fib->ipv4_dst = ip->daddr;
#else
	/* All of the first word but the version (RFC 8200, 3): IPV6_FLOWINFO_MASK */
	fib->flowinfo = *(__be32 *)ip & to_be32(0x0fffffff);
	fib->l4_protocol = ip->nexthdr;
	fib->tot_len = from_be16(ip->payload_len);
	__builtin_memcpy(fib->ipv6_src, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(fib->ipv6_dst, &ip->daddr, sizeof(ip->daddr));
#endif
}

/*
 * A router without state or NAT that asks the kernel's tables for each packet,
 * in the way of xdp-tools' xdp-forward with --fib-mode direct.
 */
PROGRAM int hopbench_route(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	ip_header *ip = (void *)(eth + 1);
	struct bpf_fib_lookup fib = { .ifindex = ctx->ingress_ifindex };

	if ((void *)(ip + 1) > end || eth->h_proto != to_be16(ETH_P_FAMILY) || *ttl_of(ip) <= 1)
		return XDP_PASS;
	route_question(&fib, ip);
	if (bpf_fib_lookup(ctx, &fib, sizeof(fib), BPF_FIB_LOOKUP_DIRECT) !=
	    BPF_FIB_LKUP_RET_SUCCESS)
		return XDP_PASS;
#if FAMILY == 4
	ip->check = csum_apply(ip->check, csum_fold_(CSUM_TTL_MINUS_ONE));
#endif
	--*ttl_of(ip);
	__builtin_memcpy(eth->h_dest, fib.dmac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, fib.smac, ETH_ALEN);
	return fib.ifindex == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(fib.ifindex, 0);
}
