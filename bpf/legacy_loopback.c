// SPDX-License-Identifier: GPL-2.0-only
/*
 * The filter of the 2022 report, written anew from its description: a chain of
 * ports on `lo`, FIRST_PORT -> FIRST_PORT + 1 -> ... -> SERVER_PORT, and back.
 *
 *   client:c -> FIRST_PORT   becomes   PORT_OF(0) -> FIRST_PORT + 1, and so on.
 *
 * It is here to be measured, not to be used. Its faults are kept on purpose:
 *
 * 1. One source port for each hop, whoever the client is. Every connection has
 *    the four-tuple of the one before, which the server, who closes first, has
 *    in TIME_WAIT. It takes a new SYN only if timestamp or sequence number lie
 *    ahead (RFC 6191). Sequence numbers begin at a hash of the client's own
 *    ports, so half of them lie behind. Timestamps have a tick of 1 ms, and the
 *    next connection is often sooner. Where the kernel adds an offset by ports
 *    to them, half lie behind for as long as TIME_WAIT lasts, and SYNs that are
 *    sent again are refused as well (TcpExtPAWSTimewait).
 * 2. Checksums are left as they are. On `lo` the data of a connection carries
 *    none that is complete and nobody checks it, so this goes unnoticed. What
 *    the kernel sends without a socket (TIME_WAIT's ACK, resets) has a complete
 *    one, which is wrong once ports are rewritten: the receiver drops it
 *    (TcpInCsumErrors). So the client hears nothing of a refusal, and sends its
 *    SYN again after a second. Nor does it hear that its FIN has arrived: it
 *    repeats that for a minute or more, for every connection there was.
 * 3. One remembered client port. What returns goes to whoever sent last: of two
 *    connections at a time, or after one of those late FINs, to the wrong one.
 * 4. Ports are compiled in, and nothing is asked of a packet but its ports: of
 *    two programs on this machine that use one of them both are rewritten.
 */
#include "shim.h"

#define HOPS (SERVER_PORT - FIRST_PORT)
/* The source port of the hop that listens on `port`. */
#define PORT_OF(port) ((port) + SOURCE_OFFSET)

/* By hop. */
struct legacy_counters {
	__u64 forwarded_packets;
	__u64 returned_packets;
	__u64 syns;
	__u64 resets;
};

MAP(legacy_counters, PERCPU_ARRAY, __u32, struct legacy_counters, HOPS, 0);
MAP(legacy_client, ARRAY, __u32, __u32, 1, 0);

static __always_inline int forward(struct tcphdr *tcp, __u32 dest, __u32 *client)
{
	__u32 hop = dest - FIRST_PORT;
	struct legacy_counters *count = bpf_map_lookup_elem(map_of(legacy_counters), &hop);

	if (!count)
		return XDP_PASS;
	if (!hop)
		*client = from_be16(tcp->source);
	count->forwarded_packets++;
	count->syns += tcp->syn;
	count->resets += tcp->rst;
	tcp->source = to_be16(PORT_OF(dest));
	tcp->dest = to_be16(dest + 1);
	return XDP_TX;
}

static __always_inline int back(struct tcphdr *tcp, __u32 dest, const __u32 *client)
{
	__u32 hop = dest - PORT_OF(FIRST_PORT);
	struct legacy_counters *count = bpf_map_lookup_elem(map_of(legacy_counters), &hop);

	if (!count)
		return XDP_PASS;
	count->returned_packets++;
	tcp->source = to_be16(FIRST_PORT + hop);
	tcp->dest = to_be16(hop ? PORT_OF(FIRST_PORT + hop - 1) : *client);
	return XDP_TX;
}

PROGRAM int hopbench_legacy(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct iphdr *ip = (void *)(eth + 1);
	struct tcphdr *tcp = (void *)(ip + 1);
	__u32 zero = 0, dest;
	__u32 *client;

	if ((void *)(tcp + 1) > end || eth->h_proto != to_be16(ETH_P_IP) || ip->ihl != 5 ||
	    ip->protocol != IPPROTO_TCP)
		return XDP_PASS;
	client = bpf_map_lookup_elem(map_of(legacy_client), &zero);
	if (!client)
		return XDP_PASS;
	dest = from_be16(tcp->dest);
	if (dest >= FIRST_PORT && dest < SERVER_PORT)
		return forward(tcp, dest, client);
	if (dest >= PORT_OF(FIRST_PORT) && dest < PORT_OF(SERVER_PORT))
		return back(tcp, dest, client);
	return XDP_PASS;
}
