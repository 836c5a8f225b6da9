# SPDX-License-Identifier: Apache-2.0
"""The local lab: a whole chain on one Linux machine, each host a network namespace."""
