/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a frame to its TCP, UDP or ICMP header, with every bound checked once.
 */
#ifndef HOPBENCH_PARSE_H
#define HOPBENCH_PARSE_H

#include "address.h"
#include "counters.h"
#include "host.h"

#define IP_MORE_FRAGMENTS 0x2000
#define IP_DONT_FRAGMENT 0x4000
#define IP_FRAGMENT_OFFSET 0x1fff
#define VLAN_ID_MASK 0x0fff

/* Not in the UAPI headers of every kernel: linux/if_vlan.h keeps it to itself. */
struct vlan_tag {
	__be16 tci;
	__be16 encapsulated;
};

#define TAGGED (VLAN || EGRESS_VLAN)
#define L2_LEN (sizeof(struct ethhdr) + (TAGGED ? sizeof(struct vlan_tag) : 0))

union l4_header {
	struct tcphdr tcp;
	struct udphdr udp;
	struct {
		__be16 source;
		__be16 dest;
	} ports;
};

/*
 * A packet under way. Pointers into the frame are valid until the program
 * changes its bounds.
 */
struct packet {
	struct counters *count;
	struct ethhdr *eth;
	struct vlan_tag *tag;
	ip_header *ip;
	union l4_header *l4;
	__u32 header_len; /* of the IP header, in octets */
	__u32 ip_len;     /* of the IP packet, in octets */
	__u8 protocol;
#ifdef TRACE
	__u32 reason; /* the counter it came to, as an index */
#endif
};

/* Count a packet under the name of what became of it. */
#ifdef TRACE
#define COUNTER_INDEX(name) (__builtin_offsetof(struct counters, name) / sizeof(__u64))
#define COUNT(pkt, name) ((pkt)->count->name++, (pkt)->reason = COUNTER_INDEX(name))
#else
#define COUNT(pkt, name) ((pkt)->count->name++)
#endif

/* Leave a packet to the stack and say why. */
#define PASS(pkt, name) (COUNT(pkt, name), XDP_PASS)
#define DROP(pkt, name) (COUNT(pkt, name), XDP_DROP)

/* 0 when the frame is of a network of ours, else it was counted. */
static __always_inline int parse_ethernet(struct packet *pkt, void *data, void *end)
{
	__be16 proto;
#if TAGGED
	__u16 id;
#endif

	pkt->eth = data;
	if ((void *)(pkt->eth + 1) > end)
		return PASS(pkt, passed_truncated);
	proto = pkt->eth->h_proto;
#if TAGGED
	pkt->tag = (void *)(pkt->eth + 1);
	if ((void *)(pkt->tag + 1) > end)
		return PASS(pkt, passed_truncated);
	if (proto != to_be16(ETH_P_8021Q))
		return PASS(pkt, passed_vlan);
	id = from_be16(pkt->tag->tci) & VLAN_ID_MASK;
	if (id != VLAN && !(EGRESS_VLAN && id == EGRESS_VLAN))
		return PASS(pkt, passed_vlan);
	proto = pkt->tag->encapsulated;
	pkt->ip = (void *)(pkt->tag + 1);
#else
	if (proto == to_be16(ETH_P_8021Q) || proto == to_be16(ETH_P_8021AD))
		return PASS(pkt, passed_vlan);
	pkt->ip = (void *)(pkt->eth + 1);
#endif
	/* A group address: not sent to this host alone (RFC 1122, 3.2.2). */
	if (pkt->eth->h_dest[0] & 1)
		return PASS(pkt, passed_not_unicast);
	/* A switch floods what it does not know, and a NIC that somebody listens to takes it. */
	if (!mac_is_ours(pkt->eth->h_dest))
		return PASS(pkt, passed_other_host);
	if (proto != to_be16(ETH_P_FAMILY))
		return PASS(pkt, passed_other_protocol);
	return 0;
}

/* 0 when the IP header is one of a whole packet; fills in protocol and lengths. */
static __always_inline int parse_ip(struct packet *pkt, void *end)
{
	ip_header *ip = pkt->ip;
	long have;

	if ((void *)(ip + 1) > end)
		return PASS(pkt, passed_truncated);
	if (ip->version != FAMILY)
		return PASS(pkt, passed_other_protocol);
	have = end - (void *)ip;
#if FAMILY == 4
	pkt->header_len = ip->ihl * 4;
	pkt->ip_len = from_be16(ip->tot_len);
	if (pkt->header_len < sizeof(*ip) || pkt->ip_len < pkt->header_len || pkt->ip_len > have)
		return PASS(pkt, passed_truncated);
	/* Only the first fragment has ports, and the stack reassembles. */
	if (ip->frag_off & to_be16(IP_MORE_FRAGMENTS | IP_FRAGMENT_OFFSET))
		return PASS(pkt, passed_fragment);
	pkt->protocol = ip->protocol;
#else
	pkt->header_len = sizeof(*ip);
	pkt->ip_len = from_be16(ip->payload_len) + sizeof(*ip);
	if (pkt->ip_len > have)
		return PASS(pkt, passed_truncated);
	if (ip->nexthdr == IPPROTO_FRAGMENT)
		return PASS(pkt, passed_fragment);
	pkt->protocol = ip->nexthdr;
#endif
	return 0;
}

/* 0 when there is a whole upper header to look at; else the frame was counted and is passed. */
static __always_inline int parse(struct xdp_md *ctx, struct packet *pkt)
{
	void *end = (void *)(long)ctx->data_end;
	__u32 need;
	int verdict;

	verdict = parse_ethernet(pkt, (void *)(long)ctx->data, end);
	if (verdict)
		return verdict;
	verdict = parse_ip(pkt, end);
	if (verdict)
		return verdict;
	pkt->l4 = (void *)pkt->ip + pkt->header_len;
	if (pkt->protocol == IPPROTO_TCP) {
		need = sizeof(struct tcphdr);
		if ((void *)pkt->l4 + sizeof(struct tcphdr) > end)
			return PASS(pkt, passed_truncated);
	} else if (pkt->protocol == IPPROTO_UDP || pkt->protocol == IPPROTO_ERRORS) {
		need = sizeof(struct udphdr);
		if ((void *)pkt->l4 + sizeof(struct udphdr) > end)
			return PASS(pkt, passed_truncated);
	} else {
		return PASS(pkt, passed_other_protocol);
	}
	if (pkt->ip_len < pkt->header_len + need)
		return PASS(pkt, passed_truncated);
	return 0;
}

#endif
