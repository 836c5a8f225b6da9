/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Incremental Internet checksums (RFC 1624, equation 3: HC' = ~(~HC + ~m + m')).
 *
 * All that a flow changes in a header is known when the flow begins, except
 * the TTL, which always falls by one. The sum of every ~m + m' is therefore
 * computed once, kept in the flow, and applied to each packet by one addition.
 */
#ifndef HOPBENCH_CHECKSUM_H
#define HOPBENCH_CHECKSUM_H

#include "address.h"

static __always_inline __u16 csum_fold_(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)sum;
}

/* ~old + new for a 16-bit field, not yet folded. */
static __always_inline __u64 csum_change16(__be16 from, __be16 to)
{
	return (__u64)(__u16)~from + (__u64)(__u16)to;
}

/* ~old + new for an address, not yet folded. */
static __always_inline __u64 csum_change_addr(const struct addr *from, const struct addr *to)
{
	__u64 sum = 0;
	int i;

#pragma unroll
	for (i = 0; i < ADDR_WORDS; i++)
		sum += (__u64)(__u32)~from->word[i] + (__u64)to->word[i];
	return sum;
}

/* ~old + new of the word that holds the TTL, when the TTL falls by one. */
#define CSUM_TTL_MINUS_ONE ((__u64)(__u16)~to_be16(0x0100))
/* Takes that back: added to it, it makes 0xffff, the other zero of ones' complement. */
#define CSUM_TTL_KEPT ((__u64)to_be16(0x0100))

/* The checksum field after `change` (folded, from the functions above) was applied. */
static __always_inline __u16 csum_apply(__u16 check, __u16 change)
{
	__u32 sum = (__u32)(__u16)~check + change;

	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

/* The same for UDP: 0 says that there is none, and what comes out as 0 is written as 0xffff. */
static __always_inline __u16 csum_apply_udp(__u16 check, __u16 change)
{
	__u16 applied;

	if (!check)
		return 0;
	applied = csum_apply(check, change);
	return applied ? applied : 0xffff;
}

#endif
