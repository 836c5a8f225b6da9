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
	__be16 client_port; /* 0: any */
	__u16 zero;
	__u32 per_second; /* packets; 0: all */
	__u32 window;     /* tick at which the second began */
	__u32 taken;
	__u64 missed;
};

MAP_NO_KEY(trace_events, RINGBUF, TRACE_RING_BYTES);
MAP(trace_control, ARRAY, __u32, struct trace_control, 1, 0);

/* Read what can be read; the program has found it whole, or not. 0 when it has ports. */
static __always_inline int trace_read(struct xdp_md *ctx, struct trace_ends *ends,
				      struct trace_event *event)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	ip_header *ip = data + L2_LEN;
	union l4_header *l4;

	if ((void *)(ip + 1) > end || ip->version != FAMILY)
		return -1;
	__builtin_memcpy(ends->source, &ip->saddr, sizeof(struct addr));
	__builtin_memcpy(ends->dest, &ip->daddr, sizeof(struct addr));
#if FAMILY == 4
	l4 = (void *)ip + ip->ihl * 4;
	event->protocol = ip->protocol;
	event->ip_len = from_be16(ip->tot_len);
	event->ip_id = ip->id;
#else
	l4 = (void *)(ip + 1);
	event->protocol = ip->nexthdr;
	event->ip_len = from_be16(ip->payload_len) + sizeof(*ip);
#endif
	event->ttl = *ttl_of(ip);
	if (event->protocol != IPPROTO_TCP && event->protocol != IPPROTO_UDP)
		return 0;
	if ((void *)(l4 + 1) > end) {
		/* A short UDP packet has ports all the same. */
		if ((void *)l4 + sizeof(struct udphdr) > end)
			return -1;
	} else if (event->protocol == IPPROTO_TCP) {
		event->seq = l4->tcp.seq;
		event->ack = l4->tcp.ack_seq;
		event->tcp_flags = ((__u8 *)l4)[13];
	}
	ends->source_port = l4->ports.source;
	ends->dest_port = l4->ports.dest;
	return 0;
}

/* Is it one of those asked for? A packet that is none of ours is not. */
static __always_inline int trace_wanted(const struct trace_event *event,
					struct trace_control *control)
{
	const __be16 port = control->client_port;
	__u32 tick;

	if (event->reason == COUNTER_INDEX(passed_not_ours) ||
	    event->reason == COUNTER_INDEX(passed_other_protocol) ||
	    event->reason == COUNTER_INDEX(passed_not_unicast) ||
	    event->reason == COUNTER_INDEX(passed_vlan))
		return 0;
	if (port && port != event->before.source_port && port != event->before.dest_port &&
	    port != event->after.source_port && port != event->after.dest_port)
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
	struct trace_event now = {};
	struct trace_control *control;
	__u32 zero = 0;

	control = bpf_map_lookup_elem(map_of(trace_control), &zero);
	if (!control)
		return;
	trace_read(ctx, &event->after, &now);
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
		trace_read(ctx, &event_.before, &event_);  \
		verdict_ = run;                            \
		trace_report(ctx, pkt, &event_, verdict_); \
		verdict_;                                  \
	})

#else

#define TRACED(ctx, pkt, run) (run)

#endif

#endif
