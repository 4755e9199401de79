"""Make the embedded generator: a small StyleGAN2 trained on pictures that are drawn here.

README.md beside this file says how it is made.

pictures       the training pictures, drawn by many processes into one file
discriminator  the network that the generator learns against
recipe         what is trained, and how: one dataclass
train          the losses and the updates
lessons        which scene a random vector stands for
teach          the same generator by regression: pictures compared with what they stand for
school         teaching for a time, and what it leaves
output         the generator's folder, the state to go on from, sheets, the log
"""
