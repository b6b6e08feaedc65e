"""Peers of blindtune, run on the same tables in the same run. ``python -m benchmarks.peers --help``."""

from benchmarks.peers.render import render

__all__ = ["render"]
