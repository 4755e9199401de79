"""Run the U-Net in parts, cut at the bottleneck, on its schedule."""

from ..schedule import Schedule
from .check import objections_to
from .conditioning import Conditioning, Step
from .folded import Constants
from .guidance import Guidance
from .held import ConvWeight, HeldNetwork, plain
from .operators import Operators
from .unet import FEATURE_BLOCK, Down, Folded, UNet, Up

__all__ = [
    "FEATURE_BLOCK",
    "Conditioning",
    "Constants",
    "ConvWeight",
    "Down",
    "Folded",
    "Guidance",
    "HeldNetwork",
    "Operators",
    "Schedule",
    "Step",
    "UNet",
    "Up",
    "objections_to",
    "plain",
]
