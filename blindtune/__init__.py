"""blindtune: train classifier heads on encrypted embeddings."""

__version__ = "0.1.0"
