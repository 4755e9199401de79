"""Load a Stable Diffusion model, cut its networks into parts, adapt them."""
