# SPDX-License-Identifier: Apache-2.0
"""The experiment of the 2022 report, made again, and what became of it."""
