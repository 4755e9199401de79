"""Hosts: dragging inside another program, where it runs.

    diffusers  a pipeline of diffusers, by its conventions

A host imports what its package needs when it is imported itself, and nothing otherwise.
"""
