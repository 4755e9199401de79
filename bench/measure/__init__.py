"""Run edits, stages, kernels, sessions and parts, and time them."""
