"""Sluicegate: a rate-limiting and caching reverse proxy that runs as a sidecar."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sluicegate")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
