/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef HOPBENCH_TRACE_H
#define HOPBENCH_TRACE_H
#include "parse.h"
#define TRACED(ctx, pkt, verdict) (verdict)
#endif
