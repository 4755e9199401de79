"""The packages that matter here, and which of them are installed."""

from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

__all__ = ["COMPUTING", "EXPORTING", "PACKAGES", "version_of", "versions"]


class _Package(NamedTuple):
    """A package whose version matters.

    Attributes:
        name: As it is installed by pip.
        computes: Whether the bits of a result depend on it.
        exports: Whether an exported part depends on it.
    """

    name: str
    computes: bool = False
    exports: bool = False


_TABLE = (
    _Package("dragnoise", exports=True),
    _Package("torch", computes=True, exports=True),
    _Package("diffusers", computes=True),
    _Package("transformers", computes=True),
    _Package("safetensors"),
    _Package("numpy", computes=True),
    _Package("pillow"),
    _Package("xformers", computes=True),
    _Package("triton", computes=True),
    _Package("onnx", exports=True),
    _Package("onnxscript", exports=True),
    _Package("onnxruntime", computes=True, exports=True),
    _Package("tensorrt", computes=True),
    _Package("tensorrt_rtx_cu13_bindings", computes=True),
)

PACKAGES = tuple(package.name for package in _TABLE)
"""Every package whose version is reported."""

COMPUTING = tuple(package.name for package in _TABLE if package.computes)
"""Packages that the bits of a result depend on (our own code is digested itself)."""

EXPORTING = tuple(package.name for package in _TABLE if package.exports)
"""Packages that an exported part depends on."""


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Return the version of each package; "-" if it is not installed."""
    return {package: version_of(package) for package in packages}


def version_of(package: str) -> str:
    """Return a package's version; "-" if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"
