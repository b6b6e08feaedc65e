"""Jobs and the leases on them: turns, quotas, workers that die, are cancelled or come too late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import insert, select, update

from blindtune.errors import PlanError, QuotaError
from blindtune.server import leases as module
from blindtune.server.database import Database
from blindtune.server.jobs import Jobs, active
from blindtune.server.leases import ATTEMPTS, Claim, Leases
from blindtune.server.tables import bundles, jobs, studies
from blindtune.server.tenants import Quota, Tenants

HEAD = {"kind": "head", "member": "", "manifest": "{}", "complete": True, "created": 0.0}


class Place:
    """A database, with its jobs and leases."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.jobs, self.leases, self.tenants = Jobs(database), Leases(database), Tenants(database)

    def tenant(self, name: str, **quota: int) -> str:
        return self.tenants.make(name, Quota(**quota))

    def study(self, tenant: str, number: int = 0) -> str:
        study = f"{number:032x}"
        row = {"tenant": tenant, "id": study, "header": "{}", "created": 0.0, "changed": 0.0}
        with self.database.transaction() as connection:
            connection.execute(insert(studies).values(row))
        return study

    def queued(self, tenant: str, number: int = 0, priority: int = 0) -> str:
        return self.jobs.enqueue(tenant, self.study(tenant, number), priority).id

    def claimed(self, cores: int = 1, host: str = "host") -> Claim:
        claim = self.leases.claim(host, cores)
        assert claim is not None
        return claim

    def lapse(self, claim: Claim) -> None:
        with self.database.transaction() as connection:
            connection.execute(update(jobs).where(jobs.c.id == claim.id).values(lease=1.0))

    def state(self, job: str) -> str:
        found = self.jobs.get(job)
        assert found is not None
        return found.state

    def heads(self) -> int:
        with self.database.reading() as connection:
            return len(connection.execute(select(bundles).where(bundles.c.kind == "head")).all())

    def place(self, claim: Claim) -> Callable[..., None]:
        head = {**HEAD, "tenant": claim.tenant, "study": claim.study}
        return lambda connection: connection.execute(insert(bundles).values(head))


@pytest.fixture
def place(database: Database) -> Place:
    return Place(database)


def test_a_job_from_the_queue_to_its_head(place: Place) -> None:
    north = place.tenant("north")
    job = place.queued(north)
    assert place.jobs.enqueue(north, f"{0:032x}").id == job
    assert place.leases.waiting()
    claim = place.claimed(cores=3)
    assert (claim.id, claim.cores, claim.step, claim.checkpoint) == (job, 3, 0, None)
    assert place.leases.claim("host", 1) is None
    assert not place.leases.waiting()
    assert place.leases.beat(claim, {"step": 1})
    assert place.leases.keep(claim, 1, "a" * 64, {"seconds": 2.0})
    found = place.jobs.get(job, north)
    assert found is not None
    assert (found.state, found.step, found.progress, found.cores) == ("running", 1, {"step": 1}, 3)
    assert place.jobs.timing(job) is None
    assert place.leases.finish(claim, {"step": 2}, {"seconds": 4.0}, place.place(claim))
    assert place.state(job) == "done"
    assert place.jobs.timing(job, north) == {"seconds": 4.0}
    assert place.heads() == 1
    with pytest.raises(PlanError, match="the study is done"):
        place.jobs.enqueue(north, claim.study)
    with pytest.raises(PlanError, match="the job is done"):
        place.jobs.cancel(job)
    with pytest.raises(PlanError, match="the study is done"):
        place.jobs.retry(job)


def test_a_worker_whose_claim_is_lost_changes_nothing(place: Place) -> None:
    north = place.tenant("north")
    job = place.queued(north)
    late = place.claimed()
    place.lapse(late)

    def nothing_changes(expected: str) -> None:
        before = place.jobs.get(job)
        assert not place.leases.beat(late, {"step": 9})
        assert not place.leases.keep(late, 9, "f" * 64, {})
        assert not place.leases.finish(late, {}, {}, place.place(late))
        assert not place.leases.fail(late, "failed", "")
        assert not place.leases.release(late)
        assert not place.leases.abandon(late)
        assert place.jobs.get(job) == before
        assert place.state(job) == expected

    nothing_changes("running")
    new = place.claimed()
    assert new.id == job
    assert new.worker != late.worker
    nothing_changes("running")
    assert place.leases.finish(new, {}, {}, place.place(new))
    nothing_changes("done")
    assert place.heads() == 1


def test_of_many_workers_one_gets_the_job(place: Place) -> None:
    place.queued(place.tenant("north"))
    found: list[Claim | None] = []
    threads = [threading.Thread(target=lambda: found.append(place.leases.claim("host", 1))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(claim is not None for claim in found) == 1


def test_what_was_kept_is_gone_on_from(place: Place) -> None:
    north = place.tenant("north")
    job = place.queued(north)
    place.leases.keep(place.claimed(), 2, "a" * 64, {"seconds": 1.0})

    def again() -> Claim:
        claim = place.claimed()
        assert (claim.step, claim.checkpoint, claim.timing) == (2, "a" * 64, {"seconds": 1.0})
        return claim

    place.leases.abandon_host("hos")
    assert place.leases.claim("host", 1) is None
    place.leases.abandon_host("host")
    place.leases.release(again())
    place.leases.fail(again(), "no room", "Make some.")
    found = place.jobs.get(job)
    assert found is not None
    assert (found.state, found.error, found.remedy) == ("failed", "no room", "Make some.")
    assert place.jobs.retry(job).error == ""
    again()
    place.jobs.cancel(job)
    assert place.jobs.cancel(job).state == "cancelled"
    # A new job for the study takes over; the old one keeps nothing any more.
    other = place.jobs.enqueue(north, f"{0:032x}").id
    assert again().id == other
    assert [(j.id, j.step) for j in place.jobs.page(north)] == [(other, 2), (job, 0)]
    with pytest.raises(PlanError, match="another job by now"):
        place.jobs.retry(job)


def test_a_job_whose_workers_die_is_given_up_unless_it_gets_on(place: Place) -> None:
    job = place.queued(place.tenant("north"))
    for _ in range(ATTEMPTS - 1):
        place.leases.abandon(place.claimed())
    # A worker that was told to stop is no dead one, and one that did a step has shown that it can.
    place.leases.release(place.claimed())
    claim = place.claimed()
    place.leases.keep(claim, 1, "a" * 64, {})
    place.leases.abandon(claim)
    for _ in range(ATTEMPTS - 1):
        place.lapse(place.claimed())
    assert place.state(job) == "running"
    assert place.leases.claim("host", 1) is None
    found = place.jobs.get(job)
    assert found is not None
    assert found.state == "failed"
    assert f"{ATTEMPTS} times" in found.error
    place.jobs.retry(job)
    assert place.claimed().step == 1


def test_a_cancelled_job_ends_for_its_worker(place: Place) -> None:
    job = place.queued(place.tenant("north"))
    claim = place.claimed()
    place.jobs.cancel(job)
    assert not place.leases.beat(claim, None)
    assert not place.leases.finish(claim, {}, {}, place.place(claim))
    assert place.heads() == 0
    assert not place.leases.waiting()


def test_tenants_take_turns_and_their_priorities_are_their_own(place: Place) -> None:
    north, south = place.tenant("north"), place.tenant("south")
    one, two, first = (place.queued(north, n, priority=p) for n, p in enumerate((5, 5, 9)))
    lone = place.queued(south, priority=-9)
    order = []
    while claim := place.leases.claim("host", 1):
        order.append(claim.id)
        place.leases.finish(claim, {}, {}, place.place(claim))
    assert order == [first, lone, one, two]


def test_cores_of_a_tenant(place: Place) -> None:
    north = place.tenant("north", max_cores=3)
    for number in range(3):
        place.queued(north, number)
    first, second = place.claimed(cores=2), place.claimed(cores=2)
    assert (first.cores, second.cores) == (2, 1)
    assert place.leases.claim("host", 2) is None
    # Others are not held up.
    lone = place.queued(place.tenant("south"))
    assert place.claimed(cores=2).id == lone
    place.leases.finish(first, {}, {}, place.place(first))
    assert place.claimed(cores=4).cores == 2


def test_jobs_of_a_tenant(place: Place) -> None:
    north = place.tenant("north", max_jobs=2)
    first, _ = (place.queued(north, n) for n in range(2))
    with pytest.raises(QuotaError, match="2 jobs are queued or running") as caught:
        place.queued(north, 2)
    assert caught.value.passing
    place.jobs.cancel(first)
    place.jobs.enqueue(north, f"{2:032x}")
    with pytest.raises(QuotaError):
        place.jobs.retry(first)


def test_pages_and_what_is_not_there(place: Place) -> None:
    north, south = place.tenant("north"), place.tenant("south")
    made = [place.queued(north, n) for n in range(5)]
    other = place.queued(south)
    newest = made[::-1]
    assert [j.id for j in place.jobs.page(north, limit=2)] == newest[:2]
    assert [j.id for j in place.jobs.page(north, limit=9, after=newest[1])] == newest[2:]
    assert [j.id for j in place.jobs.page()] == [other, *newest]
    assert [j.id for j in place.jobs.page(north, f"{3:032x}")] == [made[3]]
    assert place.jobs.get(other, north) is None
    assert place.jobs.timing(other, north) is None
    for call in (place.jobs.cancel, place.jobs.retry):
        with pytest.raises(PlanError, match="no such job"):
            call(other, north)
    with pytest.raises(PlanError, match="no such study"):
        place.jobs.enqueue(south, "e" * 32)
    with place.database.reading() as connection:
        assert active(connection, north, f"{0:032x}")
        assert not active(connection, north, "e" * 32)


def test_leases_are_renewed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.queued(place.tenant("north"))
    claim, now = place.claimed(), time.time()
    monkeypatch.setattr(module, "LEASE", 1000.0)
    assert place.leases.beat(claim, None)
    with place.database.reading() as connection:
        lease = connection.execute(select(jobs.c.lease)).scalar_one()
    assert lease >= now + 1000
