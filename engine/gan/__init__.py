"""Make pictures with StyleGAN2, written from its paper; read its files; find real pictures in it.

Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN".
"""
