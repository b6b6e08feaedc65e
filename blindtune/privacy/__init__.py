"""Differential privacy: accounting by patient, a ledger that outlives crashes, noise from the CSPRNG.

:mod:`.account`   releases with Gaussian noise, and the epsilon that they cost
:mod:`.ledger`    what a site has spent, durably, and the refusal to spend more
:mod:`.noise`     discrete Gaussian noise on a grid
:mod:`.options`   what a budget costs in noise, before training
"""
