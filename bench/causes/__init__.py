# SPDX-License-Identifier: Apache-2.0
"""What odd numbers come from: each cause is found in a run's counters, connections and facts."""
