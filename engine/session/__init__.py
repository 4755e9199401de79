"""One picture, many drags."""
