// SPDX-License-Identifier: GPL-2.0-only
/*
 * How long each connection to one destination takes: SYN sent, established,
 * and the server's FIN or the client's close, whichever comes first.
 *
 * Runs at tracepoint sock:inet_sock_set_state, which every TCP socket of the
 * machine passes in every network namespace; all but those to the destination
 * are let go after two comparisons. Only the tracepoint's own fields are read:
 * where they stand is read from the running kernel (OFFSET_name), while struct
 * sock may differ from the headers at hand.
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

/* Of what the agent wants timed; `lost` is all that is written here. */
struct timer_target {
	__u8 daddr[16]; /* IPv4's as ::ffff:a.b.c.d */
	__u16 dport;
	__u16 on;
	__u32 zero;
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

#define FIELD(ctx, type, name) (*(type *)((ctx) + OFFSET_##name))

static __always_inline int is_target(void *ctx, const struct timer_target *target)
{
	const __u64 *wanted = (const __u64 *)target->daddr;

	return target->on && FIELD(ctx, __u16, dport) == target->dport &&
	       FIELD(ctx, __u64, daddr_v6) == wanted[0] &&
	       *(__u64 *)(ctx + OFFSET_daddr_v6 + 8) == wanted[1];
}

static __always_inline void report(void *ctx, struct timer_target *target,
				   const struct open_connection *open, __u64 now, int state)
{
	struct connection done = {
		.syn_ns = open->syn_ns,
		.total_ns = now - open->syn_ns,
		.port = FIELD(ctx, __u16, sport),
	};

	if (open->established_ns) {
		done.connect_ns = open->established_ns - open->syn_ns;
		done.end = state == CLOSE_WAIT ? END_SERVER : END_CLIENT;
	} else {
		done.end = END_FAILED;
	}
	/* Nobody is woken: the agent comes by. */
	if (bpf_ringbuf_output(map_of(timer_done), &done, sizeof(done), BPF_RB_NO_WAKEUP))
		__sync_fetch_and_add(&target->lost, 1);
}

PROGRAM_AT("tracepoint/sock/inet_sock_set_state")
int hopbench_connections(void *ctx)
{
	const __u32 zero = 0;
	struct open_connection *open, fresh = {};
	struct timer_target *target;
	__u64 now, socket;
	int state;

	target = bpf_map_lookup_elem(map_of(timer_target), &zero);
	if (!target || !is_target(ctx, target))
		return 0;
	now = bpf_ktime_get_ns();
	socket = FIELD(ctx, __u64, skaddr);
	state = FIELD(ctx, __s32, newstate);
	if (state == SYN_SENT) {
		fresh.syn_ns = now;
		if (bpf_map_update_elem(map_of(timer_open), &socket, &fresh, BPF_ANY))
			__sync_fetch_and_add(&target->lost, 1);
		return 0;
	}
	open = bpf_map_lookup_elem(map_of(timer_open), &socket);
	if (!open)
		return 0;
	if (state == ESTABLISHED) {
		open->established_ns = now;
	} else if (state == CLOSE_WAIT || state == FIN_WAIT1 || state == CLOSE) {
		report(ctx, target, open, now, state);
		bpf_map_delete_elem(map_of(timer_open), &socket);
	}
	return 0;
}
