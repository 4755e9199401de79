"""Read adapters (LoRA) from files, and merge them into a model's weights."""
