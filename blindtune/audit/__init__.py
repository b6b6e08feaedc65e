"""Attacks on one's own configuration: each has a positive control, and reports what it found either way.

:mod:`.results`     what every attack reports, and its file
:mod:`.keys`        secret keys from decryptions that are told
:mod:`.membership`  who was in a head's training data, on :mod:`.heads`
:mod:`.private`     whether private training holds its epsilon
"""
