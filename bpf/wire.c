// SPDX-License-Identifier: GPL-2.0-only
/*
 * The lab's network: runs on every port of the wire's namespace and hands a
 * frame to the port of its destination.
 *
 * A Linux bridge alone costs more than the hops that are to be measured. It
 * stays behind the ports for what needs it: broadcasts (ARP) and unknown
 * destinations pass to it.
 */
#include "shim.h"

struct mac {
	__u8 octets[ETH_ALEN];
	__u16 zero;
};

/* Destination MAC -> interface index, as seen in the wire's namespace. */
MAP(ports, HASH, struct mac, __u32, PORT_COUNT, 0);

static __always_inline __u32 *port_of(struct mac *mac)
{
	return bpf_map_lookup_elem(map_of(ports), mac);
}

PROGRAM int hopbench_wire(struct xdp_md *ctx)
{
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)(long)ctx->data;
	struct mac to = {};
	__u32 *port;

	if ((void *)(eth + 1) > end)
		return XDP_PASS;
	__builtin_memcpy(to.octets, eth->h_dest, ETH_ALEN);
	port = port_of(&to);
	return port ? bpf_redirect(*port, 0) : XDP_PASS;
}

/*
 * For a wire that is a bridge alone. A hop's XDP_TX reaches its veth peer only
 * if a program is attached there too; without one frames vanish uncounted.
 */
PROGRAM int hopbench_pass(struct xdp_md *ctx)
{
	return XDP_PASS;
}
