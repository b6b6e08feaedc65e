"""Kernels of our own for the evaluation side of CKKS; see :mod:`.engine`."""
