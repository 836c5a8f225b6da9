/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Packets that do not fit the way ahead: "fragmentation needed" (RFC 1191) and
 * "packet too big" (RFC 4443), so that path-MTU discovery works through a hop.
 *
 * The stack cannot send them for us: to it, the packet is addressed to this
 * host, or, translated, comes from it. No rate limit: there is one short reply
 * for each long packet.
 */
#ifndef HOPBENCH_TOO_BIG_H
#define HOPBENCH_TOO_BIG_H

#include "checksum.h"
#include "icmp.h"
#include "parse.h"

/* How much is quoted. Less than any MTU, so that every packet too big has it:
 * the longest IPv4 header and 8 octets (RFC 792), or what IPv6 has in 1280. */
#define QUOTE_LEN (FAMILY == 4 ? 68 : 128)
#define TOO_BIG_TTL 64

struct too_big {
	ip_header ip;
	struct icmp_header icmp;
	__u8 quote[QUOTE_LEN];
};

static __always_inline __u16 csum_finish(__u64 sum)
{
	return (__u16)~csum_fold_(sum);
}

/* ICMPv6's checksum covers a pseudo-header (RFC 8200, 8.1); ICMP's does not. */
static __always_inline __u64 pseudo_header(struct too_big *reply)
{
#if FAMILY == 4
	return 0;
#else
	__u64 sum = to_be32(sizeof(*reply) - sizeof(reply->ip)) + (__u64)to_be32(IPPROTO_ICMPV6);
	int i;

#pragma unroll
	for (i = 0; i < ADDR_WORDS; i++)
		sum += (__u64)source_of(&reply->ip)->word[i] +
		       (__u64)destination_of(&reply->ip)->word[i];
	return sum;
#endif
}

static __always_inline void too_big_fill(struct too_big *reply, const struct addr *from,
					 const struct addr *to, __u16 mtu)
{
	__builtin_memset(&reply->ip, 0, sizeof(reply->ip));
	reply->icmp.type = ICMP_TOO_BIG_TYPE;
	reply->icmp.code = ICMP_TOO_BIG_CODE;
	reply->icmp.check = 0;
	reply->icmp.info = to_be32(mtu);
	*source_of(&reply->ip) = *from;
	*destination_of(&reply->ip) = *to;
	reply->ip.version = FAMILY;
	*ttl_of(&reply->ip) = TOO_BIG_TTL;
#if FAMILY == 4
	reply->ip.ihl = sizeof(reply->ip) / 4;
	reply->ip.tot_len = to_be16(sizeof(*reply));
	reply->ip.frag_off = to_be16(IP_DONT_FRAGMENT);
	reply->ip.protocol = IPPROTO_ICMP;
	reply->ip.check =
		csum_finish(bpf_csum_diff(NULL, 0, (void *)&reply->ip, sizeof(reply->ip), 0));
	reply->icmp.check = csum_finish(
		bpf_csum_diff(NULL, 0, (void *)&reply->icmp, sizeof(reply->icmp) + QUOTE_LEN, 0));
#else
	reply->ip.payload_len = to_be16(sizeof(*reply) - sizeof(reply->ip));
	reply->ip.nexthdr = IPPROTO_ICMPV6;
	reply->icmp.check = csum_finish(pseudo_header(reply) +
					(__u32)bpf_csum_diff(NULL, 0, (void *)&reply->icmp,
							     sizeof(reply->icmp) + QUOTE_LEN, 0));
#endif
}

/* Turn the frame into the reply to itself. */
static __always_inline int too_big_reply(struct xdp_md *ctx, struct packet *pkt, __u16 mtu)
{
	const int room = sizeof(struct too_big) - QUOTE_LEN;
	const struct addr from = *destination_of(pkt->ip), to = *source_of(pkt->ip);
	struct too_big *reply;
	__u8 l2[L2_LEN];
	void *data, *end;

	__builtin_memcpy(l2, pkt->eth->h_source, ETH_ALEN);
	__builtin_memcpy(l2 + ETH_ALEN, pkt->eth->h_dest, ETH_ALEN);
	__builtin_memcpy(l2 + 2 * ETH_ALEN, (void *)pkt->eth + 2 * ETH_ALEN, L2_LEN - 2 * ETH_ALEN);
	if (bpf_xdp_adjust_tail(ctx,
				(int)(L2_LEN + QUOTE_LEN) - (int)(ctx->data_end - ctx->data)) ||
	    bpf_xdp_adjust_head(ctx, -room))
		return DROP(pkt, dropped_no_room);
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	reply = data + L2_LEN;
	if ((void *)(reply + 1) > end)
		return DROP(pkt, dropped_no_room);
	__builtin_memcpy(data, l2, L2_LEN);
	too_big_fill(reply, &from, &to, mtu);
	COUNT(pkt, replied_too_big);
	return XDP_TX;
}

#endif
