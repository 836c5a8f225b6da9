/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ICMP errors about packets of a flow, translated with the packet they quote,
 * as netfilter does it (nf_nat_icmp_reply_translation): the sender becomes
 * this hop, and to the receiver the quote looks like a packet of its own.
 */
#ifndef HOPBENCH_ICMP_ERRORS_H
#define HOPBENCH_ICMP_ERRORS_H

#include "icmp.h"
#include "nat.h"
#include "translate.h"

#define QUOTED_L4_LEN 8 /* RFC 792: at least */

/* The packet an error quotes. */
struct quote {
	ip_header *ip;
	union l4_header *l4;
	__u8 protocol;
	__u8 whole_tcp; /* is its checksum there? */
};

static __always_inline int parse_quote(struct xdp_md *ctx, const struct packet *pkt,
				       struct quote *quote)
{
	void *end = (void *)(long)ctx->data_end;
	ip_header *ip = (void *)pkt->l4 + sizeof(struct icmp_header);
	__u32 len = sizeof(*ip), before = pkt->header_len + sizeof(struct icmp_header);

	if ((void *)(ip + 1) > end || ip->version != FAMILY)
		return -1;
#if FAMILY == 4
	len = ip->ihl * 4;
	/* The first fragment still has ports. */
	if (len < sizeof(*ip) || (ip->frag_off & to_be16(IP_FRAGMENT_OFFSET)))
		return -1;
	quote->protocol = ip->protocol;
#else
	quote->protocol = ip->nexthdr;
#endif
	if (quote->protocol != IPPROTO_TCP && quote->protocol != IPPROTO_UDP)
		return -1;
	quote->ip = ip;
	quote->l4 = (void *)ip + len;
	if ((void *)quote->l4 + QUOTED_L4_LEN > end || pkt->ip_len < before + len + QUOTED_L4_LEN)
		return -1;
	quote->whole_tcp = quote->protocol == IPPROTO_TCP &&
			   pkt->ip_len >= before + len + sizeof(struct tcphdr);
	return 0;
}

/* Set one 16-bit field, and add the change of it to a sum. */
static __always_inline __u64 put16(__be16 *field, __be16 value)
{
	__u64 change = csum_change16(*field, value);

	*field = value;
	return change;
}

static __always_inline __u64 put_addr(struct addr *field, const struct addr *value)
{
	__u64 change = csum_change_addr(field, value);

	*field = *value;
	return change;
}

/* Rewrite the quoted packet. Returns the change of ICMP's checksum, not folded. */
static __always_inline __u64 translate_quote(struct xdp_md *ctx, const struct quote *quote,
					     const struct flow *flow, enum direction to)
{
	void *end = (void *)(long)ctx->data_end;
	const struct addr hop = hop_addr();
	__u64 addresses, ports, total;

	if (to == TO_CLIENT) {
		addresses = put_addr(source_of(quote->ip), &flow->client) +
			    put_addr(destination_of(quote->ip), &hop);
		ports = put16(&quote->l4->ports.source, flow->client_port) +
			put16(&quote->l4->ports.dest, HOP_PORT);
	} else {
		addresses = put_addr(source_of(quote->ip), &flow->next) +
			    put_addr(destination_of(quote->ip), &flow->out);
		ports = put16(&quote->l4->ports.source, flow->next_port) +
			put16(&quote->l4->ports.dest, flow->port);
	}
	total = addresses + ports;
#if FAMILY == 4
	total += put16(&quote->ip->check, csum_apply(quote->ip->check, csum_fold_(addresses)));
#endif
	if (quote->protocol == IPPROTO_UDP) {
		__u16 *check = &quote->l4->udp.check;

		total += put16(check, csum_apply_udp(*check, csum_fold_(addresses + ports)));
	} else if (quote->whole_tcp && (void *)quote->l4 + sizeof(struct tcphdr) <= end) {
		__u16 *check = &quote->l4->tcp.check;

		total += put16(check, csum_apply(*check, csum_fold_(addresses + ports)));
	}
	return total;
}

/* Whose packet is quoted? Says also which way the error has to go. */
static __always_inline struct flow *flow_of_quote(const struct packet *pkt,
						  const struct quote *quote, enum direction *to)
{
	const struct addr *from = source_of(quote->ip), *aim = destination_of(quote->ip);
	const int udp = quote->protocol == IPPROTO_UDP;
	__u32 index = (__u32)from_be16(quote->l4->ports.source) - PORT_MIN;
	struct flow *flow;

	if (quote->l4->ports.source == HOP_PORT && addr_is_hop(from)) {
		*to = TO_NEXT;
		if (!addr_is_hop(destination_of(pkt->ip)) || !quote->l4->ports.dest)
			return NULL;
		return flow_of_client(aim, quote->l4->ports.dest, udp);
	}
	*to = TO_CLIENT;
	if (index >= PORT_COUNT)
		return NULL;
	flow = flow_at(index + (udp ? PORT_COUNT : 0));
	if (!flow || !flow->used || !flow->client_port || !addr_equal(&flow->out, from) ||
	    !addr_equal(&flow->out, destination_of(pkt->ip)) || !addr_equal(&flow->next, aim) ||
	    flow->next_port != quote->l4->ports.dest)
		return NULL;
	return flow;
}

static __always_inline int icmp_error(struct xdp_md *ctx, struct packet *pkt)
{
	struct icmp_header *icmp = (void *)pkt->l4;
	const struct addr hop = hop_addr();
	struct quote quote;
	struct flow *flow;
	enum direction to;
	__u64 change, outer;
	int known;

	if (!icmp_is_error(icmp))
		return PASS(pkt, passed_other_protocol);
	if (parse_quote(ctx, pkt, &quote))
		return PASS(pkt, passed_not_ours);
	flow = flow_of_quote(pkt, &quote, &to);
	if (!flow)
		return PASS(pkt, passed_not_ours);
	if (*ttl_of(pkt->ip) <= 1)
		return PASS(pkt, passed_ttl);
	known = way_known(ctx, pkt, flow, to, tick_now());

	change = translate_quote(ctx, &quote, flow, to);
	if (to == TO_CLIENT)
		outer = put_addr(source_of(pkt->ip), &hop) +
			put_addr(destination_of(pkt->ip), &flow->client);
	else
		outer = put_addr(source_of(pkt->ip), &flow->out) +
			put_addr(destination_of(pkt->ip), &flow->next);
	if (known)
		--*ttl_of(pkt->ip);
#if FAMILY == 4
	pkt->ip->check =
		csum_apply(pkt->ip->check, csum_fold_(outer + (known ? CSUM_TTL_MINUS_ONE : 0)));
#else
	change += outer; /* of the pseudo-header */
#endif
	icmp->check = csum_apply(icmp->check, csum_fold_(change));
	if (unlikely_(!known)) /* the stack resolves the neighbour and sends it */
		return PASS(pkt, passed_unresolved);
	if (to == TO_CLIENT)
		COUNT(pkt, errors_returned);
	else
		COUNT(pkt, errors_forwarded);
	return send(ctx, pkt, flow, to);
}

#endif
