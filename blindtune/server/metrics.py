"""Prometheus metrics of one server process: what it answered, and what the database says of the queue.

Labels are methods, route templates, states and statuses: no tenant, study or token is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from blindtune.server.tables import JOB_STATES, blobs, jobs, studies, uploads

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 10, 60)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Gauges = dict[str, float]


class Metrics:
    """The metrics of an application.

    Args:
        states: a look at the database at each scrape; see :func:`standing`.
    """

    def __init__(self, states: Callable[[], Gauges]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "blindtune_requests", "Answers given.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "blindtune_request_seconds",
            "Seconds from a request's head to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.received = Counter(
            "blindtune_received_bytes", "Bytes of request bodies taken in.", registry=self._registry
        )
        self.sent = Counter("blindtune_sent_bytes", "Bytes of answers sent.", registry=self._registry)
        self._registry.register(_Standing(states))
        ProcessCollector(registry=self._registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Standing(Collector):
    """Gauges that are read from the database when they are asked for."""

    def __init__(self, states: Callable[[], Gauges]) -> None:
        self._states = states

    def collect(self) -> Iterator[Metric]:
        found = self._states()
        per_state = GaugeMetricFamily("blindtune_jobs", "Jobs by state.", labels=["state"])
        for state in JOB_STATES:
            per_state.add_metric([state], found.pop(f"jobs_{state}"))
        yield per_state
        for name, (said, value) in {n: (_GAUGES[n], v) for n, v in found.items()}.items():
            yield GaugeMetricFamily(f"blindtune_{name}", said, value=value)

    def describe(self) -> list[Metric]:
        # Nothing is read from the database when the registry only wants names.
        return []


_GAUGES = {
    "studies": "Studies of all tenants.",
    "uploads": "Uploads on their way.",
    "stored_bytes": "Bytes of contents that are wholly there.",
    "oldest_queued_seconds": "How long the oldest queued job has waited.",
    "lapsed_leases": "Running jobs whose worker was not heard of in time.",
}


def standing(connection: Connection) -> Gauges:
    """How things stand in the database, as :class:`Metrics` wants it."""
    now = time.time()
    found = {f"jobs_{state}": 0.0 for state in JOB_STATES}
    for state, count in connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)):
        found[f"jobs_{state}"] = count
    oldest = connection.scalar(select(func.min(jobs.c.queued)).where(jobs.c.state == "queued"))
    lapsed = select(func.count()).where(jobs.c.state == "running", jobs.c.lease < now)
    return found | {
        "studies": connection.scalar(select(func.count()).select_from(studies)) or 0,
        "uploads": connection.scalar(select(func.count()).select_from(uploads)) or 0,
        "stored_bytes": float(connection.scalar(select(func.sum(blobs.c.size))) or 0),
        "oldest_queued_seconds": max(0.0, now - oldest) if oldest else 0.0,
        "lapsed_leases": connection.scalar(lapsed) or 0,
    }
