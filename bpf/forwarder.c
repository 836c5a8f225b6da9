// SPDX-License-Identifier: GPL-2.0-only
/*
 * A single-port TCP forwarder with full NAT, for one NIC.
 *
 *   client:c -> HOP_IP:HOP_PORT   becomes   HOP_IP:p -> next:n   and back.
 *
 * Compiled with HOP_IP, HOP_PORT (numbers in network order) and PORT_MIN,
 * PORT_MAX (host order) as constants; the next hop is a setting, so that one
 * loaded program serves chains of different length. Packets that are not of
 * its flows go to the stack untouched: SSH may share the NIC.
 */
#include "checksum.h"
#include "counters.h"
#include "nat.h"
#include "parse.h"
#include "shim.h"

#define AF_INET_ 2

/* Network order. next_port is 0 while there is no next hop. */
struct settings {
	__be32 next_ip;
	__be16 next_port;
	__u16 zero;
};

BPF_TABLE("array", __u32, struct settings, settings, 1);

static __always_inline struct settings *settings_now(void)
{
	__u32 zero = 0;

	return settings.lookup(&zero);
}

/*
 * The next hop's MAC address from the kernel's own tables; 0 on success.
 * No neighbour: the agent has the stack resolve it before it says ready.
 */
static __always_inline int resolve_next(struct xdp_md *ctx, const struct iphdr *ip, __be32 next_ip,
					__u8 *mac, struct counters *count)
{
	struct bpf_fib_lookup fib = {
		.family = AF_INET_,
		.l4_protocol = IPPROTO_TCP,
		.tot_len = from_be16(ip->tot_len),
		.ipv4_src = HOP_IP,
		.ipv4_dst = next_ip,
		.ifindex = ctx->ingress_ifindex,
	};
	long result = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);

	if (result == BPF_FIB_LKUP_RET_NO_NEIGH) {
		count->dropped_no_neighbour++;
		return -1;
	}
	/* Behind another NIC is no route either: this program sends where it received. */
	if (result != BPF_FIB_LKUP_RET_SUCCESS || fib.ifindex != ctx->ingress_ifindex) {
		count->dropped_no_route++;
		return -1;
	}
	__builtin_memcpy(mac, fib.dmac, ETH_ALEN);
	return 0;
}

/* A SYN of an endpoint without an open flow: make or reopen one. NULL: drop, counted. */
static __always_inline struct flow *flow_open(struct xdp_md *ctx, struct segment *seg,
					      struct flow *flow, struct counters *count)
{
	struct settings *set = settings_now();
	__be32 client_ip = seg->ip->saddr;
	__be16 client_port = seg->tcp->source;
	__u64 now = bpf_ktime_get_coarse_ns();
	__u8 mac[ETH_ALEN];
	int known = flow != NULL;

	if (!set || !set->next_port) {
		count->dropped_not_ready++;
		return NULL;
	}
	if (resolve_next(ctx, seg->ip, set->next_ip, mac, count))
		return NULL;
	if (!known) {
		flow = port_claim(client_ip, client_port, now, count);
		if (!flow) {
			count->dropped_no_port++;
			return NULL;
		}
	}
	__builtin_memcpy(flow->client_mac, seg->eth->h_source, ETH_ALEN);
	__builtin_memcpy(flow->next_mac, mac, ETH_ALEN);
	flow->seen_ns = now;
	flow->flags = 0;
	flow_describe(flow, client_ip, client_port, set->next_ip, set->next_port);
	count->flows_opened++;
	if (known)
		count->flows_reopened++;
	return flow;
}

/* Note FIN and RST; `fin` is the flag of the sender's side. */
static __always_inline void flow_track(struct flow *flow, const struct tcphdr *tcp, __u8 fin,
				       struct counters *count)
{
	int was_closed;

	flow->seen_ns = bpf_ktime_get_coarse_ns();
	if (likely_(!tcp->fin && !tcp->rst))
		return;
	was_closed = flow_closed(flow);
	if (tcp->fin)
		flow->flags |= fin;
	if (tcp->rst)
		flow->flags |= FLOW_RST;
	if (!was_closed && flow_closed(flow))
		count->flows_closed++;
}

static __always_inline int transmit(struct segment *seg, const __u8 *mac, __u16 ip_change,
				    __u16 tcp_change)
{
	seg->ip->ttl--;
	seg->ip->check = csum_apply(seg->ip->check, ip_change);
	seg->tcp->check = csum_apply(seg->tcp->check, tcp_change);
	__builtin_memcpy(seg->eth->h_source, seg->eth->h_dest, ETH_ALEN);
	__builtin_memcpy(seg->eth->h_dest, mac, ETH_ALEN);
	return XDP_TX;
}

static __always_inline int from_client(struct xdp_md *ctx, struct segment *seg,
				       struct counters *count)
{
	struct flow *flow = flow_of_client(seg->ip->saddr, seg->tcp->source);
	int syn = seg->tcp->syn && !seg->tcp->ack;

	if (!flow && !syn) {
		count->passed_no_flow++;
		return XDP_PASS;
	}
	if (seg->ip->ttl <= 1) {
		count->passed_ttl++;
		return XDP_PASS;
	}
	if (unlikely_(syn)) {
		struct settings *set = settings_now();
		int stale = flow && set &&
			    (flow->next_ip != set->next_ip || flow->next_port != set->next_port);

		/* A repeated SYN of an open flow goes on as it is. */
		if (!flow || flow_closed(flow) || stale) {
			flow = flow_open(ctx, seg, flow, count);
			if (!flow)
				return XDP_DROP;
		}
	}
	flow_track(flow, seg->tcp, FLOW_FIN_CLIENT, count);

	count->forwarded_packets++;
	count->forwarded_bytes += ctx->data_end - ctx->data;
	seg->ip->saddr = HOP_IP;
	seg->ip->daddr = flow->next_ip;
	seg->tcp->source = flow->port;
	seg->tcp->dest = flow->next_port;
	return transmit(seg, flow->next_mac, flow->forward_ip_change, flow->forward_tcp_change);
}

static __always_inline int from_next(struct xdp_md *ctx, struct segment *seg,
				     struct counters *count)
{
	struct flow *flow = flow_at((__u32)from_be16(seg->tcp->dest) - PORT_MIN);

	/* The array bounds the port: outside the range there is no flow. */
	if (!flow || !flow->used || flow->next_ip != seg->ip->saddr ||
	    flow->next_port != seg->tcp->source) {
		count->passed_not_ours++;
		return XDP_PASS;
	}
	if (seg->ip->ttl <= 1) {
		count->passed_ttl++;
		return XDP_PASS;
	}
	flow_track(flow, seg->tcp, FLOW_FIN_SERVER, count);

	count->returned_packets++;
	count->returned_bytes += ctx->data_end - ctx->data;
	seg->ip->saddr = HOP_IP;
	seg->ip->daddr = flow->client_ip;
	seg->tcp->source = HOP_PORT;
	seg->tcp->dest = flow->client_port;
	return transmit(seg, flow->client_mac, flow->return_ip_change, flow->return_tcp_change);
}

int hopbench_fwd(struct xdp_md *ctx)
{
	struct counters *count = counters_here();
	struct segment seg;

	if (!count)
		return XDP_PASS;

	switch (parse_tcp(ctx, &seg)) {
	case PARSED:
		break;
	case PARSE_NOT_IPV4:
		count->passed_not_ipv4++;
		return XDP_PASS;
	case PARSE_NOT_TCP:
		count->passed_not_tcp++;
		return XDP_PASS;
	case PARSE_FRAGMENT:
		count->passed_fragment++;
		return XDP_PASS;
	default:
		count->passed_truncated++;
		return XDP_PASS;
	}

	if (seg.ip->daddr != HOP_IP) {
		count->passed_not_ours++;
		return XDP_PASS;
	}
	if (seg.tcp->dest == HOP_PORT)
		return from_client(ctx, &seg, count);
	return from_next(ctx, &seg, count);
}
