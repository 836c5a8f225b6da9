# SPDX-License-Identifier: Apache-2.0
"""Pages as a person sees them: opened in a browser without a screen."""
