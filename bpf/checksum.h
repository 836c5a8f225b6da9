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

#include "shim.h"

static __always_inline __u16 csum_fold_(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)sum;
}

/* ~old + new for a 32-bit field, not yet folded. */
static __always_inline __u64 csum_change32(__be32 from, __be32 to)
{
	return (__u64)(__u32)~from + (__u64)(__u32)to;
}

/* ~old + new for a 16-bit field, not yet folded. */
static __always_inline __u64 csum_change16(__be16 from, __be16 to)
{
	return (__u64)(__u16)~from + (__u64)(__u16)to;
}

/* ~old + new of the word that holds the TTL, when the TTL falls by one. */
#define CSUM_TTL_MINUS_ONE ((__u64)(__u16)~to_be16(0x0100))

/* The checksum field after `change` (from the functions above) was applied. */
static __always_inline __u16 csum_apply(__u16 check, __u16 change)
{
	__u32 sum = (__u32)(__u16)~check + change;

	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

#endif
