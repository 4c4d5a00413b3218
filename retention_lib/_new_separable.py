"""The name that `separable` had while it was being rewritten."""

from retention_lib.separable import Fit, minimise, profile

__all__ = ["Fit", "minimise", "profile"]
