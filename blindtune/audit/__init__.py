"""Attacks on one's own configuration: each has a positive control, and reports what it found either way.

:mod:`.results`     what every attack reports, and its file
:mod:`.keys`        secret keys from decryptions that are told
:mod:`.membership`  who was in a head's training data, on :mod:`.heads`
:mod:`.private`     whether private training holds its epsilon
:mod:`.reconstruction`  scans from gradients: what is :mod:`.observed`, and its :mod:`.inversion`
:mod:`.embedding`   embeddings from gradients, scans and patients from embeddings, by a :mod:`.decoder`
:mod:`.privacy_report`  all of it on one page
"""
