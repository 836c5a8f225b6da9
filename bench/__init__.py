# SPDX-License-Identifier: Apache-2.0
"""hopbench: what a forwarding hop costs, by datapath."""

__version__ = "0.1.0"
