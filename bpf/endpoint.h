/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Client endpoints that are away from home, and where their flows are.
 */
#ifndef HOPBENCH_ENDPOINT_H
#define HOPBENCH_ENDPOINT_H

#include "address.h"
#include "parse.h"

#define EEXIST_ 17 /* asm-generic/errno-base.h */

/* A client endpoint; the protocol tells TCP's from UDP's. */
struct endpoint {
	struct addr addr;
	__be16 port;
	__u16 udp;
};

MAP(by_client, HASH, struct endpoint, __u32, NAT_FLOWS, 0);

static __always_inline struct endpoint endpoint_of(const struct addr *addr, __be16 port, int udp)
{
	struct endpoint end = { .addr = *addr, .port = port, .udp = udp };

	return end;
}

static __always_inline __u32 *endpoint_lookup(const struct endpoint *end)
{
	return bpf_map_lookup_elem(map_of(by_client), end);
}

/* Remember an endpoint away from home; when that fails, it was counted. */
static __always_inline int endpoint_insert(struct packet *pkt, const struct endpoint *end,
					   __u32 place)
{
	long failed = bpf_map_update_elem(map_of(by_client), end, &place, BPF_NOEXIST);

	if (failed == -EEXIST_)
		COUNT(pkt, dropped_claim_lost);
	else if (failed)
		COUNT(pkt, dropped_table_full);
	return failed != 0;
}

static __always_inline void endpoint_delete(const struct endpoint *end)
{
	bpf_map_delete_elem(map_of(by_client), end);
}

#endif
