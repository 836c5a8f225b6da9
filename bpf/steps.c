// SPDX-License-Identifier: GPL-2.0-only
/*
 * What single choices cost, for `bench datapath --steps`: a program each, that
 * takes its key from the packet, does one thing, and ends.
 *
 * A lookup uses what it finds, as a forwarder does: a part of its cost is the
 * cache line it brings in.
 */
#include "address.h"
#include "shim.h"

#define AF_FAMILY (FAMILY == 4 ? 2 : 10) /* include/linux/socket.h */

/* As an endpoint of nat.h. */
struct key {
	struct addr addr;
	__be16 port;
	__u16 zero;
};

/* A cache line, as a flow over IPv4. */
struct entry {
	__u32 uses;
	__u32 rest[15];
};

MAP(by_index, ARRAY, __u32, struct entry, STEP_ENTRIES, 0);
MAP(by_key, HASH, struct key, struct entry, STEP_ENTRIES, 0);
MAP(by_key_too, HASH, struct key, struct entry, STEP_ENTRIES, 0);
MAP(by_key_lru, LRU_HASH, struct key, struct entry, STEP_ENTRIES, 0);
MAP(claimed, HASH, __u32, __u8, 1024, 0);
MAP(counted, PERCPU_ARRAY, __u32, __u64, 1, 0);

/* 0 when the packet is long enough to have one. */
static __always_inline int key_of(struct xdp_md *ctx, struct key *key)
{
	void *end = (void *)(long)ctx->data_end;
	ip_header *ip = (void *)(long)ctx->data + sizeof(struct ethhdr);
	struct udphdr *ports = (void *)(ip + 1);

	if ((void *)(ports + 1) > end)
		return -1;
	key->addr = *source_of(ip);
	key->port = ports->source;
	key->zero = 0;
	return 0;
}

static __always_inline int use(struct entry *entry)
{
	if (!entry)
		return XDP_PASS;
	entry->uses++;
	return XDP_DROP;
}

/* The key alone, which is in all that follow. */
PROGRAM int step_key(struct xdp_md *ctx)
{
	struct key key;

	if (key_of(ctx, &key))
		return XDP_PASS;
	return key.port ? XDP_DROP : XDP_PASS;
}

PROGRAM int step_array(struct xdp_md *ctx)
{
	struct key key;
	__u32 index;

	if (key_of(ctx, &key))
		return XDP_PASS;
	index = from_be16(key.port);
	return use(bpf_map_lookup_elem(map_of(by_index), &index));
}

PROGRAM int step_hash(struct xdp_md *ctx)
{
	struct key key;

	if (key_of(ctx, &key))
		return XDP_PASS;
	return use(bpf_map_lookup_elem(map_of(by_key), &key));
}

PROGRAM int step_lru(struct xdp_md *ctx)
{
	struct key key;

	if (key_of(ctx, &key))
		return XDP_PASS;
	return use(bpf_map_lookup_elem(map_of(by_key_lru), &key));
}

/* A flow in two entries, one for connection tracking and one for NAT, say. */
PROGRAM int step_two_hashes(struct xdp_md *ctx)
{
	struct key key;

	if (key_of(ctx, &key))
		return XDP_PASS;
	if (use(bpf_map_lookup_elem(map_of(by_key), &key)) != XDP_DROP)
		return XDP_PASS;
	return use(bpf_map_lookup_elem(map_of(by_key_too), &key));
}

/* Written by the helper, and not in place. */
PROGRAM int step_lru_update(struct xdp_md *ctx)
{
	struct entry entry = {};
	struct key key;

	if (key_of(ctx, &key))
		return XDP_PASS;
	return bpf_map_update_elem(map_of(by_key_lru), &key, &entry, BPF_EXIST) ? XDP_PASS :
										  XDP_DROP;
}

PROGRAM int step_fib(struct xdp_md *ctx)
{
	struct bpf_fib_lookup fib = { .family = AF_FAMILY, .ifindex = ctx->ingress_ifindex };
	ip_header *ip = (void *)(long)ctx->data + sizeof(struct ethhdr);
	struct key key;

	if (key_of(ctx, &key))
		return XDP_PASS;
#if FAMILY == 4
	fib.ipv4_src = ip->saddr;
	fib.ipv4_dst = ip->daddr;
#else
	__builtin_memcpy(fib.ipv6_src, &ip->saddr, sizeof(ip->saddr));
	__builtin_memcpy(fib.ipv6_dst, &ip->daddr, sizeof(ip->daddr));
#endif
	return bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) ? XDP_PASS : XDP_DROP;
}

PROGRAM int step_ktime(struct xdp_md *ctx)
{
	struct key key;

	if (key_of(ctx, &key))
		return XDP_PASS;
	return bpf_ktime_get_ns() ? XDP_DROP : XDP_PASS;
}

PROGRAM int step_ktime_coarse(struct xdp_md *ctx)
{
	struct key key;

	if (key_of(ctx, &key))
		return XDP_PASS;
	return bpf_ktime_get_coarse_ns() ? XDP_DROP : XDP_PASS;
}

PROGRAM int step_jiffies(struct xdp_md *ctx)
{
	struct key key;

	if (key_of(ctx, &key))
		return XDP_PASS;
	return bpf_jiffies64() ? XDP_DROP : XDP_PASS;
}

PROGRAM int step_counter(struct xdp_md *ctx)
{
	struct key key;
	__u32 zero = 0;
	__u64 *count;

	if (key_of(ctx, &key))
		return XDP_PASS;
	count = bpf_map_lookup_elem(map_of(counted), &zero);
	if (!count)
		return XDP_PASS;
	++*count;
	return XDP_DROP;
}

/* As nat.h claims a port. */
PROGRAM int step_claim(struct xdp_md *ctx)
{
	struct key key;
	__u8 one = 1;
	__u32 index;

	if (key_of(ctx, &key))
		return XDP_PASS;
	index = key.port;
	if (bpf_map_update_elem(map_of(claimed), &index, &one, BPF_NOEXIST))
		return XDP_PASS;
	return bpf_map_delete_elem(map_of(claimed), &index) ? XDP_PASS : XDP_DROP;
}
