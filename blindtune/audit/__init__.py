"""Attacks on one's own configuration: each has a positive control, and reports what it found either way.

:mod:`.results`   what every attack reports, and its file
"""
