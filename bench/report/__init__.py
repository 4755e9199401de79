"""Keep what was measured, and show it."""
