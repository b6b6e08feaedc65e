"""Rounds over a network: Flower's grid, messages and Fleet API, without the code that Flower would ship.

:mod:`.members`       what hospitals hand each other: public keys, the roster file, the node key
:mod:`.certificates`  a throw-away certificate authority, for trials
:mod:`.envelope`      requests and answers as Flower's records, signed by the hospital that answers
:mod:`.objects`       messages as the objects that Flower stores and moves, within limits
:mod:`.apps`          the coordinator as a ServerApp, a hospital as a ClientApp
:mod:`.channel`       :class:`~blindtune.federation.channel.Channel` over a Flower grid
:mod:`.grid`          the grid, in the aggregator's process
:mod:`.link`          the aggregator's server: Flower's Fleet API over TLS, and nothing else of Flower's
:mod:`.fleet`         a hospital's calls of that API
:mod:`.node`          a hospital: takes messages, answers them, for ever
"""
