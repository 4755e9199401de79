"""The command line. Light to import: PyTorch is loaded once the arguments are known to be good."""

from .main import main

__all__ = ["main"]
