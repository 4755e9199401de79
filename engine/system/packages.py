"""Which packages are here."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["version_of"]


def version_of(package: str) -> str:
    """Its version; "-" where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"
