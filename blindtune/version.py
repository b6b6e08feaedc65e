"""The version, apart from the package: parts that may import little of it name it too."""

__version__ = "0.1.0"
