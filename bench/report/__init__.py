# SPDX-License-Identifier: Apache-2.0
"""Reports: pages and plots made from a run directory."""
