// SPDX-License-Identifier: GPL-2.0-only
/*
 * How long each connection to one destination takes: SYN sent, established,
 * and the server's FIN or the client's close, whichever comes first.
 *
 * Runs at raw tracepoint inet_sock_set_state, which every TCP socket of the
 * machine passes in every network namespace. Where a socket has its fields is
 * read from the running kernel's BTF (OFFSET_name): the headers at hand may be
 * another kernel's.
 *
 * There are two of the same program. The kernel does not run a tracing program
 * on a CPU that is in it already: when a packet's soft interrupt comes while a
 * system call changes a socket's state, what the interrupt does to other sockets
 * would go unseen. It cannot come in both at once, so one of the two sees each
 * change; what both see, the second finds done. A perf event's program would
 * not do, because all of those exclude each other.
 */
#include "shim.h"

#define OPEN_CONNECTIONS 16384

/* include/net/tcp_states.h, which is no UAPI header; BPF has the same numbers. */
#define ESTABLISHED 1
#define SYN_SENT 2
#define FIN_WAIT1 4
#define CLOSE 7
#define CLOSE_WAIT 8

enum connection_end {
	END_SERVER, /* its FIN came first */
	END_CLIENT, /* it closed first, or the connection was reset */
	END_FAILED, /* never established */
};

#define EEXIST 17

/* What the agent wants timed; `lost` is all that is written here. */
struct timer_target {
	__u8 daddr[16]; /* IPv4's in the first four */
	__be16 dport;
	__u16 family; /* 4 or 6; 0: nothing is timed */
	__u32 netns;  /* inode number of the sockets' network namespace */
	__u64 lost;
};

struct open_connection {
	__u64 syn_ns; /* CLOCK_MONOTONIC, as all of these */
	__u64 established_ns;
};

struct connection {
	__u64 syn_ns;
	__u64 connect_ns; /* 0: never established */
	__u64 total_ns;
	__u16 port; /* the client's, 0 where it got none */
	__u8 end;
	__u8 zero[5];
};

MAP(timer_target, ARRAY, __u32, struct timer_target, 1, 0);
MAP(timer_open, HASH, __u64, struct open_connection, OPEN_CONNECTIONS, 0);
MAP_NO_KEY(timer_done, RINGBUF, TIMER_RING_BYTES);

/* struct bpf_raw_tracepoint_args: TP_PROTO of include/trace/events/sock.h. */
struct state_change {
	__u64 sk;
	__u64 old_state;
	__u64 new_state;
};

#define READ(to, sk, name) bpf_probe_read_kernel(to, sizeof(*(to)), (void *)((sk) + OFFSET_##name))

/* Another namespace may have the same addresses: every one has 127.0.0.1. */
static __always_inline __u32 netns_of(__u64 sk)
{
	__u64 net = 0;
	__u32 inode = 0;

	READ(&net, sk, skc_net);
	READ(&inode, net, netns_inum);
	return inode;
}

static __always_inline int is_target(__u64 sk, const struct timer_target *target)
{
	const __u64 *wanted = (const __u64 *)target->daddr;
	__u64 daddr6[2] = {};
	__be16 dport = 0;
	__be32 daddr = 0;

	READ(&dport, sk, skc_dport);
	if (dport != target->dport || netns_of(sk) != target->netns)
		return 0;
	if (target->family == 4) {
		READ(&daddr, sk, skc_daddr);
		return daddr == *(const __be32 *)target->daddr;
	}
	READ(&daddr6, sk, skc_v6_daddr);
	return target->family == 6 && daddr6[0] == wanted[0] && daddr6[1] == wanted[1];
}

static __always_inline void report(__u64 sk, struct timer_target *target,
				   const struct open_connection *open, __u64 now, int state)
{
	struct connection done = {
		.syn_ns = open->syn_ns,
		.total_ns = now - open->syn_ns,
		.end = END_FAILED,
	};
	__be16 port = 0;

	/* skc_num is 0 once the port is put back, which comes before CLOSE is seen. */
	READ(&port, sk, inet_sport);
	done.port = from_be16(port);
	if (open->established_ns) {
		done.connect_ns = open->established_ns - open->syn_ns;
		done.end = state == CLOSE_WAIT ? END_SERVER : END_CLIENT;
	}
	/* Nobody is woken: the agent comes by. */
	if (bpf_ringbuf_output(map_of(timer_done), &done, sizeof(done), BPF_RB_NO_WAKEUP))
		__sync_fetch_and_add(&target->lost, 1);
}

static __always_inline int change(struct state_change *ctx)
{
	const __u32 zero = 0;
	struct open_connection *open, fresh = {};
	struct timer_target *target;
	int state = ctx->new_state;
	__u64 now, sk = ctx->sk;
	long error;

	if (state != SYN_SENT && state != ESTABLISHED && state != CLOSE_WAIT &&
	    state != FIN_WAIT1 && state != CLOSE)
		return 0;
	target = bpf_map_lookup_elem(map_of(timer_target), &zero);
	if (!target)
		return 0;
	if (state == SYN_SENT) {
		if (!target->family || !is_target(sk, target))
			return 0;
		fresh.syn_ns = bpf_ktime_get_ns();
		error = bpf_map_update_elem(map_of(timer_open), &sk, &fresh, BPF_NOEXIST);
		if (error && error != -EEXIST)
			__sync_fetch_and_add(&target->lost, 1);
		return 0;
	}
	open = bpf_map_lookup_elem(map_of(timer_open), &sk);
	if (!open)
		return 0;
	now = bpf_ktime_get_ns();
	if (state == ESTABLISHED) {
		if (!open->established_ns)
			open->established_ns = now;
		return 0;
	}
	fresh = *open;
	/* Whoever deletes it reports it. */
	if (!bpf_map_delete_elem(map_of(timer_open), &sk) && target->family)
		report(sk, target, &fresh, now, state);
	return 0;
}

PROGRAM_AT("raw_tp/inet_sock_set_state")
int hopbench_connections(struct state_change *ctx)
{
	return change(ctx);
}

PROGRAM_AT("raw_tp/inet_sock_set_state")
int hopbench_connections_again(struct state_change *ctx)
{
	return change(ctx);
}
