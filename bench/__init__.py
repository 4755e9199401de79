"""Measure edits, count their work, and keep the records."""
