"""The version of the package, for all who name it without loading the rest."""

__all__ = ["__version__"]

__version__ = "0.1.0"
