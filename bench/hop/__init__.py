# SPDX-License-Identifier: Apache-2.0
"""The agent that runs on hosts: standard library and Debian's bcc, nothing of the controller."""
