"""Observe which block of the U-Net holds what: replace its output, and see what is kept."""
