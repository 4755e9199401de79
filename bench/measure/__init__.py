"""Run and time edits, stages, kernels, sessions and exported parts."""
