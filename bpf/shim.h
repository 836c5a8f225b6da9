/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the compiler at hand does not give by itself: types, byte order, maps.
 *
 * Only UAPI headers may be included. Anything that reaches the kernel's own
 * <linux/bpf.h> breaks as soon as the headers at hand are older or newer than
 * the running kernel.
 *
 * BCC rewrites map operations only in its main file and never inside a macro.
 * The loader therefore pastes every local include into one text, and the
 * wrappers below are plain functions. BCC idioms stay in this header and in
 * the map wrappers of the file that owns the map.
 */
#ifndef HOPBENCH_SHIM_H
#define HOPBENCH_SHIM_H

#include <uapi/linux/bpf.h>
#include <uapi/linux/if_ether.h>
#include <uapi/linux/in.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/tcp.h>

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#define likely_(x) __builtin_expect(!!(x), 1)
#define unlikely_(x) __builtin_expect(!!(x), 0)

/* Orders writes for the compiler; a flow is filled before it is published. */
#define barrier_() asm volatile("" ::: "memory")

#define to_be16(x) ((__be16)__builtin_bswap16((__u16)(x)))
#define from_be16(x) ((__u16)__builtin_bswap16((__u16)(x)))

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "only little-endian machines are supported"
#endif

#endif
