/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the forwarder counts, per CPU; the agent reads the names from this list.
 */
#ifndef HOPBENCH_COUNTERS_H
#define HOPBENCH_COUNTERS_H

#include "shim.h"

#define COUNTERS(X)                                                                      \
	X(forwarded_packets) /* client side to next hop */                               \
	X(forwarded_bytes)                                                               \
	X(returned_packets) /* next hop to client side */                                \
	X(returned_bytes)                                                                \
	X(errors_forwarded) /* ICMP errors translated, towards the next hop */           \
	X(errors_returned)  /* and towards the client */                                 \
	X(replied_too_big)  /* packets answered with "fragmentation needed" */           \
	X(flows_opened)                                                                  \
	X(flows_reopened) /* of the opened: the client had an old flow */                \
	X(flows_closed)                                                                  \
	X(flows_evicted) /* idle for too long, and the port was wanted */                \
	X(port_kept)     /* the client's own port */                                     \
	X(port_other)                                                                    \
	X(port_collisions) /* a port tried was not free */                               \
	X(passed_truncated)                                                              \
	X(passed_vlan) /* another network's tag, or none where one is due */             \
	X(passed_not_unicast)                                                            \
	X(passed_other_host) /* sent to a MAC address that is not this hop's */          \
	X(passed_other_protocol)                                                         \
	X(passed_fragment)                                                               \
	X(passed_not_ours)                                                               \
	X(passed_no_flow) /* to the forwarded port, but neither a SYN nor known */       \
	X(passed_ttl)                                                                    \
	X(passed_unresolved) /* translated, for the stack to resolve the neighbour */    \
	X(passed_too_big)    /* translated, for the stack to fragment */                 \
	X(dropped_not_ready) /* no next hop configured */                                \
	X(dropped_no_route)                                                              \
	X(dropped_no_port)    /* none of those tried is free */                          \
	X(dropped_table_full) /* no room for another flow away from its client's home */ \
	X(dropped_claim_lost) /* another CPU was faster */                               \
	X(dropped_no_room)    /* no headroom for an ICMP header */

#define COUNTER_FIELD(name) __u64 name;
struct counters {
	COUNTERS(COUNTER_FIELD)
};

MAP(counters, PERCPU_ARRAY, __u32, struct counters, 1, 0);

static __always_inline struct counters *counters_here(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(map_of(counters), &zero);
}

#endif
