/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Addresses and IP headers of the family that this program is compiled for.
 */
#ifndef HOPBENCH_ADDRESS_H
#define HOPBENCH_ADDRESS_H

#include "shim.h"

#if FAMILY == 4
#define ADDR_WORDS 1
#define ETH_P_FAMILY ETH_P_IP
#define IPPROTO_ERRORS IPPROTO_ICMP
typedef struct iphdr ip_header;
#elif FAMILY == 6
#define ADDR_WORDS 4
#define ETH_P_FAMILY ETH_P_IPV6
#define IPPROTO_ERRORS IPPROTO_ICMPV6
typedef struct ipv6hdr ip_header;
#else
#error "FAMILY is 4 or 6"
#endif

/* In network order; what the header's saddr and daddr hold. */
struct addr {
	__be32 word[ADDR_WORDS];
};

static __always_inline struct addr *source_of(ip_header *ip)
{
	return (struct addr *)&ip->saddr;
}

static __always_inline struct addr *destination_of(ip_header *ip)
{
	return (struct addr *)&ip->daddr;
}

static __always_inline int addr_equal(const struct addr *a, const struct addr *b)
{
#if FAMILY == 4
	return a->word[0] == b->word[0];
#else
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] &&
	       a->word[3] == b->word[3];
#endif
}

/* TTL or hop limit. */
static __always_inline __u8 *ttl_of(ip_header *ip)
{
#if FAMILY == 4
	return &ip->ttl;
#else
	return &ip->hop_limit;
#endif
}

#endif
