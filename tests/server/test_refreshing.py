"""Trainings that wait for the hospitals: what is left for them, what they make of it, and going on."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindtune.errors import BundleError, PlanError
from blindtune.server.messages import Letter
from blindtune.server.refreshing import Waits
from blindtune.server.training import Pulse, Training
from blindtune.wire.bundle import frame, framed
from blindtune.wire.message import FRESH, STALE
from tests.members import Members
from tests.server.placing import Place, until


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "data")
    yield made
    made.service.close()


@pytest.fixture
def refreshed(study: Any) -> Any:
    study.program = replace(study.program, refreshes=(1,))
    return study


def letter(place: Place, study: Any, name: tuple[str, str]) -> Letter:
    return Letter(place.tenant, study.id, "refresh-0", *name)


def stale(place: Place, study: Any) -> list[bytes]:
    """What the server left for the hospitals."""
    found = place.service.messages.find(letter(place, study, STALE))
    assert found is not None
    return list(framed(place.service.contents.path(place.tenant, found), "stale", 2, 1 << 20))


def say(place: Place, study: Any, blobs: list[bytes], tmp_path: Path) -> None:
    """Answer, as the hospitals do."""
    file = tmp_path / secrets.token_hex(4)
    content = Members("lmu", "tum").message("refresh-0", FRESH, "lmu", b"".join(frame(blobs)))
    file.write_bytes(content)
    made, sha256 = letter(place, study, (FRESH, "lmu")), hashlib.sha256(content).hexdigest()
    place.service.messages.post(made, sha256, len(content))
    place.service.contents.keep(place.tenant, file)


def anew(study: Any, blobs: list[bytes]) -> list[bytes]:
    """The same weights with all levels, by an owner's key instead of a joint one."""
    return [study.key.encrypt(study.key.decrypt(study.key.load(blob))) for blob in blobs]


def test_a_job_waits_for_the_hospitals_and_goes_on(refreshed: Any, place: Place, tmp_path: Path) -> None:
    job = place.start(refreshed)
    with place.working():
        until(lambda: place.job(job).state == "waiting")
        found = place.job(job)
        assert (found.step, found.attempts) == (1, 0)
        assert "refresh the weights (1 of 1)" in found.error
        assert "study open" in found.remedy
        # Started too early it waits again.
        assert place.service.jobs.enqueue(place.tenant, refreshed.id).id == job
        until(lambda: place.job(job).state == "waiting")
        blobs = stale(place, refreshed)
        say(place, refreshed, anew(refreshed, blobs), tmp_path)
        assert place.service.jobs.retry(job).error == ""
        place.done(job)
    head = refreshed.decrypt(place.head(refreshed, tmp_path / "head"))
    assert np.abs(head - refreshed.dense()).max() < 1e-3
    assert len(place.service.jobs.page(place.tenant)) == 1


def test_a_waiting_job_is_cancelled_or_deleted(refreshed: Any, place: Place, tmp_path: Path) -> None:
    job = place.start(refreshed)
    with pytest.raises(Waits):
        train(place, tmp_path)
    assert place.service.jobs.cancel(job).state == "cancelled"
    place.service.jobs.retry(job)
    with pytest.raises(Waits):
        train(place, tmp_path)
    assert place.service.studies.delete(place.tenant, refreshed.id)
    assert not place.service.jobs.page(place.tenant)


def test_what_is_not_fresh_is_refused(refreshed: Any, place: Place, tmp_path: Path) -> None:
    place.start(refreshed)
    with pytest.raises(Waits):
        train(place, tmp_path)
    say(place, refreshed, stale(place, refreshed), tmp_path)
    place.service.jobs.enqueue(place.tenant, refreshed.id)
    with pytest.raises(BundleError, match="refresh 1"):
        train(place, tmp_path)


def test_other_weights_than_the_hospitals_saw_are_not_left(
    refreshed: Any, place: Place, tmp_path: Path
) -> None:
    place.put(refreshed)
    assert place.service.messages.post(letter(place, refreshed, STALE), "0" * 64, 100)
    place.service.jobs.enqueue(place.tenant, refreshed.id)
    with pytest.raises(PlanError, match="another message"):
        train(place, tmp_path)


def train(place: Place, tmp_path: Path) -> None:
    """One claim, in this process."""
    work = tmp_path / secrets.token_hex(4)
    work.mkdir()
    claim = place.service.leases.claim("host", 1)
    assert claim is not None
    try:
        Training(place.service, claim, work, Pulse()).run()
    except Waits as waits:
        place.service.leases.wait(claim, waits.what, waits.remedy)
        raise
