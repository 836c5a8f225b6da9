/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the compiler at hand does not give by itself: types, byte order, maps.
 *
 * Two ways to compile the same sources. BCC (HOPBENCH_BCC is defined): the
 * agent makes the maps and passes MAP_FD_name, and the sizes it made them
 * with, which are checked here. clang --target=bpf: maps as BTF definitions for libbpf.
 *
 * Only UAPI headers may be included. Anything that reaches the kernel's own
 * <linux/bpf.h> breaks as soon as the headers at hand are older or newer than
 * the running kernel.
 */
#ifndef HOPBENCH_SHIM_H
#define HOPBENCH_SHIM_H

#ifdef HOPBENCH_BCC

#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/in6.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>
#include <uapi/linux/tcp.h>
#include <uapi/linux/udp.h>

#define MAP(name, kind, key_type, value_type, entries, flags)                          \
	_Static_assert(sizeof(key_type) == MAP_KEY_##name, "size of a key of " #name); \
	_Static_assert(sizeof(value_type) == MAP_VALUE_##name, "size of a value of " #name)
#define MAP_NO_KEY(name, kind, entries) _Static_assert(1, "")
#define map_of(name) ((void *)bpf_pseudo_fd(1, MAP_FD_##name))
/* The only element of an array that programs do not write; name_value() is where it is. */
#define VALUE(name, value_type)                                                              \
	_Static_assert(sizeof(value_type) == MAP_VALUE_##name, "size of a value of " #name); \
	static __always_inline const value_type *name##_value(void)                          \
	{                                                                                    \
		return (const value_type *)bpf_pseudo_fd(2, MAP_FD_##name);                  \
	}                                                                                    \
	_Static_assert(1, "")
#define PROGRAM
#define PROGRAM_AT(section)

#else

#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_helpers.h>

#define MAP(name, kind, key_type, value_type, entries, flags) \
	struct {                                              \
		__uint(type, BPF_MAP_TYPE_##kind);            \
		__uint(max_entries, entries);                 \
		__uint(map_flags, flags);                     \
		__type(key, key_type);                        \
		__type(value, value_type);                    \
	} name SEC(".maps")
#define MAP_NO_KEY(name, kind, entries)            \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_##kind); \
		__uint(max_entries, entries);      \
	} name SEC(".maps")
#define map_of(name) ((void *)&name)
#define VALUE(name, value_type)                                     \
	value_type name##_here;                                     \
	static __always_inline const value_type *name##_value(void) \
	{                                                           \
		return &name##_here;                                \
	}                                                           \
	_Static_assert(1, "")
#define PROGRAM SEC("xdp")
#define PROGRAM_AT(section) SEC(section)

char license_[] SEC("license") = "GPL";

#ifndef NULL
#define NULL ((void *)0)
#endif

#endif

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define likely_(x) __builtin_expect(!!(x), 1)
#define unlikely_(x) __builtin_expect(!!(x), 0)

/* By the helper's number: BCC's headers and libbpf's declare it in different ways. */
static __always_inline void tail_call(void *ctx, void *programs, __u32 index)
{
	((long (*)(void *, void *, __u32))BPF_FUNC_tail_call)(ctx, programs, index);
}

/* Orders writes for the compiler; a flow is filled before it is published. */
#define barrier_() asm volatile("" ::: "memory")

#define to_be16(x) ((__be16)__builtin_bswap16((__u16)(x)))
#define from_be16(x) ((__u16)__builtin_bswap16((__u16)(x)))
#define to_be32(x) ((__be32)__builtin_bswap32((__u32)(x)))

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "only little-endian machines are supported"
#endif

#endif
