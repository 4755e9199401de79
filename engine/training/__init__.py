"""Train adapters of pictures."""
