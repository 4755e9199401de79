"""An edit from top to bottom."""
