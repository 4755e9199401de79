"""DragNoise as a custom pipeline: diffusers copies this file and looks for a pipeline in it."""

from dragnoise.engine.hosts.diffusers import DragNoisePipeline

__all__ = ["DragNoisePipeline"]
