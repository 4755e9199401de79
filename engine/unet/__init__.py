"""The U-Net, cut at the bottleneck, and the schedule that it is run on."""

from .parts import Decoder, Down, UNet, Up, objections
from .schedule import Schedule

__all__ = ["Decoder", "Down", "Schedule", "UNet", "Up", "objections"]
