"""A Stable Diffusion model: its networks, loaded, cut into parts, adapted."""
