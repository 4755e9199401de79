"""Make the embedded model: a small Stable Diffusion trained on pictures that are drawn here.

With it drags can be tried and judged offline. README.md beside this file says how it is made.

world, painting, drags  scenes, their pictures, and drags on them whose result is known
words, networks         the tokenizer and the networks
shards, recipe, train   data, samples, updates
autoencoder             the VAE's decoder, taught to draw this world
pack, samples           the folder that the engine reads, and the demo's pictures
measure, accept         the engine's edits, judged
"""
