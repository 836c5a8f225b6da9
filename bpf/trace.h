/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a hop did to each packet, for `bench trace`: addresses before and after,
 * verdict and reason, through a ring buffer. Without TRACE it is not there.
 */
#ifndef HOPBENCH_TRACE_H
#define HOPBENCH_TRACE_H

#include "parse.h"

#ifdef TRACE

#define TRACE_RING_BYTES (1 << 22)

/* Addresses in network order; IPv4's stand in the first four octets. */
struct trace_ends {
	__u8 source[16];
	__u8 dest[16];
	__be16 source_port;
	__be16 dest_port;
};

struct trace_event {
	__u64 ns; /* CLOCK_MONOTONIC */
	struct trace_ends before;
	struct trace_ends after;
	__be32 seq;
	__be32 ack;
	__u16 ip_len;
	__be16 ip_id;
	__u16 reason; /* which counter */
	__u8 protocol;
	__u8 tcp_flags;
	__u8 ttl;
	__u8 verdict;
	__u8 zero[6];
};

/* Written by the agent, but for `window`, `taken` and `missed`. */
struct trace_control {
	__be16 port;      /* on either side; 0: any */
	__u16 mask;       /* of trace_hash(): 0 for every packet, 1 for every other, 3, 7, … */
	__u32 per_second; /* packets; 0: all */
	__u32 window;     /* tick at which the second began */
	__u32 taken;
	__u64 missed;
};

MAP_NO_KEY(trace_events, RINGBUF, TRACE_RING_BYTES);
MAP(trace_control, ARRAY, __u32, struct trace_control, 1, 0);

/* Addresses and ports of the frame as it is now; what is not there is left out. */
static __always_inline union l4_header *trace_ends_of(struct xdp_md *ctx, struct trace_ends *ends)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	ip_header *ip = data + L2_LEN;
	union l4_header *l4;

	if ((void *)(ip + 1) > end)
		return NULL;
	__builtin_memcpy(ends->source, &ip->saddr, sizeof(struct addr));
	__builtin_memcpy(ends->dest, &ip->daddr, sizeof(struct addr));
#if FAMILY == 4
	l4 = (void *)ip + ip->ihl * 4;
#else
	l4 = (void *)(ip + 1);
#endif
	if ((void *)l4 + sizeof(struct udphdr) > end)
		return NULL;
	ends->source_port = l4->ports.source;
	ends->dest_port = l4->ports.dest;
	return l4;
}

/*
 * What the packet is, whatever the program will make of it. No branch on the
 * protocol, which would double the verifier's work on all that follows: the
 * agent knows which fields ICMP and UDP lack.
 */
static __always_inline void trace_look(struct xdp_md *ctx, struct trace_event *event)
{
	union l4_header *l4 = trace_ends_of(ctx, &event->before);
	void *end = (void *)(long)ctx->data_end;
	ip_header *ip = (void *)(long)ctx->data + L2_LEN;

	if ((void *)(ip + 1) > end)
		return;
	event->ttl = *ttl_of(ip);
#if FAMILY == 4
	event->protocol = ip->protocol;
	event->ip_len = from_be16(ip->tot_len);
	event->ip_id = ip->id;
#else
	event->protocol = ip->nexthdr;
	event->ip_len = from_be16(ip->payload_len) + sizeof(*ip);
#endif
	if (!l4 || (void *)(&l4->tcp + 1) > end)
		return;
	event->seq = l4->tcp.seq;
	event->ack = l4->tcp.ack_seq;
	event->tcp_flags = ((__u8 *)l4)[13];
}

/* Of what no hop changes: hops with the same mask choose the same packets. */
static __always_inline __u32 trace_hash(const struct trace_event *event)
{
	__u32 hash = event->seq ^ event->ack ^ event->ip_id ^ event->ip_len;

	return (hash * 2654435761u) >> 16;
}

/* Is it one of those asked for? A packet that is none of ours is not. */
static __always_inline int trace_wanted(const struct trace_event *event,
					struct trace_control *control)
{
	const __be16 port = control->port;
	__u32 tick;

	if (event->reason == COUNTER_INDEX(passed_not_ours) ||
	    event->reason == COUNTER_INDEX(passed_other_protocol) ||
	    event->reason == COUNTER_INDEX(passed_not_unicast) ||
	    event->reason == COUNTER_INDEX(passed_vlan))
		return 0;
	if (port && port != event->before.source_port && port != event->before.dest_port &&
	    port != event->after.source_port && port != event->after.dest_port)
		return 0;
	if (trace_hash(event) & control->mask)
		return 0;
	if (!control->per_second)
		return 1;
	/* Two CPUs may both take the last one; a limit need not be exact. */
	tick = (__u32)bpf_jiffies64();
	if (tick - control->window >= HZ) {
		control->window = tick;
		control->taken = 0;
	}
	if (control->taken < control->per_second) {
		control->taken++;
		return 1;
	}
	control->missed++;
	return 0;
}

static __always_inline void trace_report(struct xdp_md *ctx, struct packet *pkt,
					 struct trace_event *event, int verdict)
{
	struct trace_control *control;
	__u32 zero = 0;

	control = bpf_map_lookup_elem(map_of(trace_control), &zero);
	if (!control)
		return;
	trace_ends_of(ctx, &event->after);
	event->reason = pkt->reason;
	event->verdict = verdict;
	if (!trace_wanted(event, control))
		return;
	event->ns = bpf_ktime_get_ns();
	if (bpf_ringbuf_output(map_of(trace_events), event, sizeof(*event), 0))
		control->missed++;
}

#define TRACED(ctx, pkt, run)                              \
	({                                                 \
		struct trace_event event_ = {};            \
		int verdict_;                              \
                                                           \
		trace_look(ctx, &event_);                  \
		verdict_ = run;                            \
		trace_report(ctx, pkt, &event_, verdict_); \
		verdict_;                                  \
	})

#else

#define TRACED(ctx, pkt, run) (run)

#endif

#endif
