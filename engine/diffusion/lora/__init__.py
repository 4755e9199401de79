"""Adapters (LoRA) as files, and merged into a model's weights."""
