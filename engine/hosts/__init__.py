"""Hosts: dragging inside another program, where it runs.

    jupyter    a widget in a notebook (`dragnoise.jupyter`)
    gradio     a component, and a demo made of it (`dragnoise.gradio`)
    diffusers  a pipeline of diffusers, by its conventions
    comfyui    nodes of ComfyUI

A host imports what its package needs when it is imported itself, and nothing otherwise. The first
two show the studio's canvas (`engine/serve/page`), which asks a desk (`desk.py`).
"""
