"""Version of the package, importable without loading it."""

__version__ = "0.1.0"
