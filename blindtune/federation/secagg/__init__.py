"""Secure aggregation: the sum of many hospitals' vectors, and nothing else, for a server that nobody trusts.

The protocol is that of Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine
Learning" (CCS 2017, figure 4, the variant against an active adversary): pairwise and self masks, Shamir
shares of what unmasks, signed keys and a consistency round; the full graph, for 3 to 50 hospitals.

    :mod:`.session`     what all members must agree on before anyone sends a thing
    :mod:`.quantise`    floats to integers modulo 2^k, with a proved bound and no overflow
    :mod:`.masks`       streams of masks from agreed keys
    :mod:`.shamir`      shares of secrets
    :mod:`.messages`    what crosses the line, as a checked schema
    :mod:`.member`      a hospital's side;  :mod:`.journal` keeps it across restarts
    :mod:`.aggregator`  the server's side
    :mod:`.protocol`    the five messages in order, for both sides
    :mod:`.local`       all in one process, for simulation
"""
