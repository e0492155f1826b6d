"""Pure functions from arrays to numbers."""

from voxlift.metrics.froc import FrocResult, froc

__all__ = ["FrocResult", "froc"]
