/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is this hop's own. In a map, and not among the constants that the
 * program is compiled with: one compilation serves every hop of a chain.
 */
#ifndef HOPBENCH_HOST_H
#define HOPBENCH_HOST_H

#include "address.h"

struct nic {
	__u32 dev;  /* as the routing tables know it */
	__u32 link; /* what the program runs on: the same, or what a VLAN device lies on */
	__u8 mac[ETH_ALEN];
	__u16 zero;
};

struct host {
	struct nic data;
	struct nic egress; /* zeros without one: EGRESS, a constant, says whether there is */
	struct addr addr;  /* towards the client, in network order */
};

VALUE(host, struct host);

static __always_inline struct addr hop_addr(void)
{
	return host_value()->addr;
}

static __always_inline int addr_is_hop(const struct addr *a)
{
	return addr_equal(a, &host_value()->addr);
}

static __always_inline int dev_is_ours(__u32 dev)
{
	const struct host *host = host_value();

	return dev == host->data.dev || (EGRESS && dev == host->egress.dev);
}

static __always_inline int mac_equal(const __u8 *a, const __u8 *b)
{
	return *(const __u32 *)a == *(const __u32 *)b &&
	       *(const __u16 *)(a + 4) == *(const __u16 *)(b + 4);
}

/* Was a frame sent to this host, and not only seen by it? */
static __always_inline int mac_is_ours(const __u8 *mac)
{
	const struct host *host = host_value();

	return mac_equal(mac, host->data.mac) || (EGRESS && mac_equal(mac, host->egress.mac));
}

#endif
