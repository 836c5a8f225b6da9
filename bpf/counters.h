/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the forwarder counts, per CPU; the agent reads the names from this list.
 */
#ifndef HOPBENCH_COUNTERS_H
#define HOPBENCH_COUNTERS_H

#include "shim.h"

#define COUNTERS(X)                                                                       \
	X(forwarded_packets) /* client side to next hop */                                \
	X(forwarded_bytes)                                                                \
	X(returned_packets) /* next hop to client side */                                 \
	X(returned_bytes)                                                                 \
	X(flows_opened)                                                                   \
	X(flows_reopened) /* of the opened: the same client endpoint on its own port */   \
	X(flows_closed)                                                                   \
	X(port_collisions) /* a wanted port was taken or still in TIME_WAIT */            \
	X(passed_not_ipv4)                                                                \
	X(passed_not_tcp)                                                                 \
	X(passed_fragment)                                                                \
	X(passed_truncated)                                                               \
	X(passed_not_ours)                                                                \
	X(passed_no_flow) /* to the forwarded port, but neither a SYN nor known */        \
	X(passed_ttl)                                                                     \
	X(dropped_no_port) /* all tried were taken, in TIME_WAIT or just being claimed */ \
	X(dropped_no_route)                                                               \
	X(dropped_no_neighbour)                                                           \
	X(dropped_not_ready) /* no next hop configured */

#define COUNTER_FIELD(name) __u64 name;
struct counters {
	COUNTERS(COUNTER_FIELD)
};

BPF_TABLE("percpu_array", __u32, struct counters, counters, 1);

static __always_inline struct counters *counters_here(void)
{
	__u32 zero = 0;

	return counters.lookup(&zero);
}

#endif
