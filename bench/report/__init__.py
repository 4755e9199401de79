"""Keep records of what was measured, and show them."""
