/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP's header and the types of its errors (RFC 792, RFC 4443).
 *
 * Not linux/icmp.h: it reaches for the C library, which a BPF target lacks.
 */
#ifndef HOPBENCH_ICMP_H
#define HOPBENCH_ICMP_H

#include "address.h"

struct icmp_header {
	__u8 type;
	__u8 code;
	__u16 check;
	__be32 info; /* of a packet too big: the MTU */
};

#if FAMILY == 4
#define ICMP_TOO_BIG_TYPE 3
#define ICMP_TOO_BIG_CODE 4
#else
#define ICMP_TOO_BIG_TYPE 2
#define ICMP_TOO_BIG_CODE 0
#endif

/* Does it speak of a packet, and end with it? Redirects do the former, but are for this host. */
static __always_inline int icmp_is_error(const struct icmp_header *icmp)
{
#if FAMILY == 4
	/* destination unreachable, time exceeded, parameter problem */
	return icmp->type == 3 || icmp->type == 11 || icmp->type == 12;
#else
	/* and packet too big, which in IPv4 is a code of the first */
	return icmp->type >= 1 && icmp->type <= 4;
#endif
}

#endif
