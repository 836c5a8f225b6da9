/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Rewriting a packet of a flow, and sending it.
 */
#ifndef HOPBENCH_TRANSLATE_H
#define HOPBENCH_TRANSLATE_H

#include "checksum.h"
#include "flow.h"
#include "neighbour.h"
#include "parse.h"

/* What a flow changes in the checksums of its packets, by its endpoints. */
static __always_inline void way_describe(struct flow *flow, __be16 client_port)
{
	const struct addr hop = hop_addr();
	__u64 sum;

	sum = csum_change_addr(&flow->client, &flow->out) + csum_change_addr(&hop, &flow->next);
	flow->way[TO_NEXT].ip_change = csum_fold_(sum + CSUM_TTL_MINUS_ONE);
	flow->way[TO_NEXT].l4_change = csum_fold_(sum + csum_change16(client_port, flow->port) +
						  csum_change16(HOP_PORT, flow->next_port));

	sum = csum_change_addr(&flow->next, &hop) + csum_change_addr(&flow->out, &flow->client);
	flow->way[TO_CLIENT].ip_change = csum_fold_(sum + CSUM_TTL_MINUS_ONE);
	flow->way[TO_CLIENT].l4_change = csum_fold_(sum + csum_change16(flow->next_port, HOP_PORT) +
						    csum_change16(flow->port, client_port));
}

/* Addresses, ports and checksums; the TTL too unless the stack is to do that. */
static __always_inline void translate(struct packet *pkt, const struct flow *flow,
				      enum direction to, int keep_ttl)
{
	const struct way *way = &flow->way[to];
	ip_header *ip = pkt->ip;

	if (to == TO_NEXT) {
		*source_of(ip) = flow->out;
		*destination_of(ip) = flow->next;
		pkt->l4->ports.source = flow->port;
		pkt->l4->ports.dest = flow->next_port;
	} else {
		*source_of(ip) = hop_addr();
		*destination_of(ip) = flow->client;
		pkt->l4->ports.source = HOP_PORT;
		pkt->l4->ports.dest = flow->client_port;
	}
	if (pkt->protocol == IPPROTO_TCP)
		pkt->l4->tcp.check = csum_apply(pkt->l4->tcp.check, way->l4_change);
	else
		pkt->l4->udp.check = csum_apply_udp(pkt->l4->udp.check, way->l4_change);
	if (!keep_ttl)
		--*ttl_of(ip);
#if FAMILY == 4
	ip->check = csum_apply(ip->check, keep_ttl ? csum_fold_(way->ip_change + CSUM_TTL_KEPT) :
						     way->ip_change);
#endif
}

/* The Ethernet header for a flow's neighbour, and the verdict that sends the frame there. */
static __always_inline int send(struct xdp_md *ctx, struct packet *pkt, const struct flow *flow,
				enum direction to)
{
	struct ethhdr *eth = pkt->eth;
#if EGRESS
	const __u8 egress = to == TO_NEXT ? FLOW_NEXT_BY_EGRESS : FLOW_CLIENT_BY_EGRESS;
	const __u32 by_egress = !!(flow->used & egress);
	const struct host *host = host_value();
	const struct nic *nic = by_egress ? &host->egress : &host->data;

	__builtin_memcpy(eth->h_source, nic->mac, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, flow->way[to].mac, ETH_ALEN);
#if TAGGED
	pkt->tag->tci = (pkt->tag->tci & to_be16((__u16)~VLAN_ID_MASK)) |
			to_be16(by_egress ? EGRESS_VLAN : VLAN);
#endif
	return nic->link == ctx->ingress_ifindex ? XDP_TX : bpf_redirect(nic->link, 0);
#else
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, flow->way[to].mac, ETH_ALEN);
	return XDP_TX;
#endif
}

#endif
