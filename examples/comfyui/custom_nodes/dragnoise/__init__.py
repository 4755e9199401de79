"""Nodes of dragnoise: copy this folder into ComfyUI's custom_nodes; see docs/comfyui.md."""

from dragnoise.engine.hosts.comfyui import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
