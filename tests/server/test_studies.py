"""Studies, their bundles and heads: one suite for SQLite and PostgreSQL."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
from sqlalchemy import select, update

from blindtune.errors import BundleError, PlanError, QuotaError
from blindtune.server.blobs import DirectoryBlobs
from blindtune.server.contents import Contents
from blindtune.server.jobs import Jobs
from blindtune.server.studies import Studies
from blindtune.server.tables import blobs, jobs, parts
from blindtune.server.tables import studies as table
from blindtune.server.tenants import Tenants
from blindtune.wire.bundle import Bundle, write_bundle
from blindtune.wire.manifest import parse_manifest


class Place:
    """Studies of two tenants."""

    def __init__(self, database, directory):
        self.database, self.directory = database, directory
        self.contents = Contents(database, DirectoryBlobs(directory / "blobs"), directory / "incoming")
        self.studies = Studies(database, self.contents, insecure=True)
        self.jobs, self.tenants = Jobs(database), Tenants(database)
        self.north, self.south = self.tenants.make("north"), self.tenants.make("south")

    def send(self, tenant, path):
        """Submit a bundle; the names of the parts that were missing."""
        bundle = Bundle(path, insecure=True)
        m = bundle.manifest
        missing = self.studies.open_bundle(tenant, m)
        for part in missing:
            upload = self.contents.announce(tenant, part.sha256, part.size)
            shutil.copy(bundle.open_part(part.name), upload.file)
            self.contents.place(upload)
        assert self.studies.complete(tenant, m.study, m.kind, m.member)
        return [p.name for p in missing]

    def send_all(self, tenant, study):
        for path in study.bundles():
            self.send(tenant, path)

    def train(self, tenant, study):
        """A head in its place without training."""
        job = self.jobs.enqueue(tenant, study.id).id
        target = self.directory / f"head-{job}"
        items = [study.key.encrypt(np.zeros(study.parameters.slots))] * 2
        manifest = write_bundle(target, study.manifest("head", study.members[0]), [("weights", items)])
        self.contents.keep(tenant, target / "parts" / "weights")
        with self.database.transaction() as db:
            self.studies.put_head(db, tenant, study.id, manifest)
            db.execute(update(jobs).where(jobs.c.id == job).values(state="done"))
        shutil.rmtree(target)
        return manifest

    def count(self, column):
        with self.database.reading() as db:
            return len(db.execute(select(column)).all())

    def files(self):
        return [
            p for p in self.directory.rglob("*") if p.is_file() and p.parent.parent.parent.name == "blobs"
        ]


@pytest.fixture
def place(database, tmp_path):
    return Place(database, tmp_path / "server")


def test_a_study_fills_up_until_it_is_ready(place, study):
    keys, north, south = study.bundles()
    assert place.studies.status(place.north, study.id) is None
    assert place.send(place.north, north) == ["data-0-0", "data-0-1", "residual-0-0-0"]
    found = place.studies.status(place.north, study.id)
    assert (found["state"], found["uploaded"], found["keys"], found["start"]) == (
        "uploading",
        ["north"],
        False,
        None,
    )
    with (
        place.database.reading() as db,
        pytest.raises(PlanError, match="uploaded yet: south, the evaluation"),
    ):
        place.studies.made(db, place.north, study.id)
    place.send(place.north, keys)
    place.send(place.north, south)
    found = place.studies.status(place.north, study.id)
    assert (found["state"], found["uploaded"], found["keys"]) == ("ready", ["north", "south"], True)
    assert found["bytes"] == sum(Bundle(p, insecure=True).size for p in study.bundles())
    # Nothing of it is another tenant's.
    assert place.studies.status(place.south, study.id) is None
    assert place.studies.page(place.south, None, 10) == []
    assert not place.studies.delete(place.south, study.id)
    assert not place.studies.complete(place.south, study.id, "data", "north")


def test_bundles_are_laid_out_for_a_training_without_being_copied(place, study, tmp_path):
    place.send_all(place.north, study)
    (tmp_path / "work").mkdir()
    keys, data, start = place.studies.bundles(place.north, study.id, tmp_path / "work")
    for bundle, path in zip((keys, *data), study.bundles(), strict=True):
        bundle.verify()
        assert bundle.manifest == Bundle(path, insecure=True).manifest
    assert start is None
    part = keys.manifest.parts[0]
    assert keys.open_part(part.name).samefile(place.contents.path(place.north, part.sha256))


def test_what_is_here_is_not_missing(place, study, make_study):
    keys, north, _ = study.bundles()
    place.send(place.north, north)
    assert place.send(place.north, north) == []
    assert len(place.send(place.south, north)) == 3
    # A second study of the same key: its evaluation keys, drawn anew, are not sent again.
    place.send(place.north, keys)
    other = make_study("other")
    other.key = study.key
    assert Bundle(other.keys(), insecure=True).manifest.parts != Bundle(keys, insecure=True).manifest.parts
    assert place.send(place.north, other.directory / "keys") == []
    assert len(place.send(place.south, other.directory / "keys")) == 2
    # And stays what it is when it is submitted once more.
    assert place.send(place.north, other.directory / "keys") == []
    # Keys of another key, or for other rotations, are.
    stranger = make_study("stranger")
    assert len(place.send(place.north, stranger.keys())) == 2


def test_an_incomplete_bundle_is_replaced_and_a_complete_one_is_not(place, study):
    north, anew = study.data("north"), study.data("north", "anew")
    first = Bundle(north, insecure=True)
    part = place.studies.open_bundle(place.north, first.manifest)[0]
    upload = place.contents.announce(place.north, part.sha256, part.size)
    shutil.copy(first.open_part(part.name), upload.file)
    place.contents.place(upload)
    with pytest.raises(BundleError, match="2 parts have not arrived"):
        place.studies.complete(place.north, study.id, "data", "north")
    assert len(place.send(place.north, anew)) == 3
    # What the first one had sent is gone with it.
    assert place.count(blobs.c.sha256) == place.count(parts.c.sha256) == len(place.files()) == 3
    with pytest.raises(PlanError, match="another bundle of data is here"):
        place.studies.open_bundle(place.north, first.manifest)


def test_bundles_of_another_study_under_its_name_are_refused(place, study, make_study):
    place.send(place.north, study.keys())
    other = make_study("other", id=study.id).data("south")
    with pytest.raises(BundleError, match="another key"):
        place.send(place.north, other)
    # The same name at another tenant's is no matter.
    place.send(place.south, other)


def test_data_packed_in_another_way_make_no_study(place, study, make_study):
    place.send(place.north, study.keys())
    place.send(place.north, study.data("north"))
    other = make_study("other", id=study.id)
    other.key = study.key
    other.layout = type(study.layout)(study.layout.slots, 2, (8,), 2, 1, 1)
    place.send(place.north, other.data("south"))
    with place.database.reading() as db, pytest.raises(PlanError, match="packed in another way"):
        place.studies.made(db, place.north, study.id)


def test_a_manifest_takes_room_too(place, study):
    place.tenants.limit(place.north, {"max_bytes": 100})
    with pytest.raises(QuotaError, match="MB are left"):
        place.send(place.north, study.keys())
    assert place.studies.status(place.north, study.id) is None


def test_a_head_and_what_deletion_leaves(place, study):
    place.send_all(place.north, study)
    place.send_all(place.south, study)
    assert place.studies.head(place.north, study.id) is None
    manifest = place.train(place.north, study)
    assert place.studies.status(place.north, study.id)["state"] == "done"
    assert parse_manifest(place.studies.head(place.north, study.id), insecure=True) == manifest
    assert place.studies.head_part(place.north, study.id, "weights") == manifest.parts[0]
    assert place.studies.head_part(place.north, study.id, "other") is None
    assert place.studies.head(place.south, study.id) is None
    assert place.studies.delete(place.north, study.id)
    assert not place.studies.delete(place.north, study.id)
    assert place.studies.status(place.north, study.id) is None
    assert place.studies.status(place.south, study.id)["state"] == "ready"
    assert {p.parent.parent.name for p in place.files()} == {place.south}
    assert place.jobs.page(place.north) == []


def test_queued_and_running_studies_are_not_deleted(place, study):
    place.send_all(place.north, study)
    job = place.jobs.enqueue(place.north, study.id)
    with pytest.raises(PlanError, match="queued or running"):
        place.studies.delete(place.north, study.id)
    place.jobs.cancel(job.id)
    assert place.studies.delete(place.north, study.id)


def test_what_two_studies_share_stays_with_the_other(place, study, make_study):
    other = make_study("other")
    other.key = study.key
    place.send(place.north, study.keys())
    place.send(place.north, other.keys())
    place.studies.delete(place.north, study.id)
    assert len(place.files()) == 2
    place.studies.delete(place.north, other.id)
    assert place.files() == []


def test_another_start_takes_the_place_of_the_first_and_of_what_came_of_it(place, make_study):
    started = make_study("started", steps=1, started=True)
    place.send_all(place.north, started)
    assert place.studies.status(place.north, started.id)["start"] is False
    first, second = (started.start(np.full((11, 2), value), f"start-{value}") for value in (0.1, 0.2))
    place.send(place.north, first)
    assert place.studies.status(place.north, started.id)["state"] == "ready"
    job = place.jobs.enqueue(place.north, started.id)
    with pytest.raises(PlanError, match="queued or running"):
        place.send(place.north, second)
    place.jobs.cancel(job.id)
    place.train(place.north, started)
    before = len(place.files())
    place.send(place.north, second)
    found = place.studies.status(place.north, started.id)
    assert (found["state"], found["job"]) == ("ready", None)
    assert place.studies.head(place.north, started.id) is None
    # The old start and the old head are gone, the new start is here.
    assert len(place.files()) == before - 1


def test_pages_hold_everything_once(place, study, make_study):
    made = sorted([study.id, *(make_study(n).id for n in ("a", "b"))])
    for tenant in (place.north, place.south):
        for name in made:
            path = make_study(f"{tenant}-{name}", id=name).data("north")
            place.studies.open_bundle(tenant, Bundle(path, insecure=True).manifest)
    found, after = [], None
    while page := place.studies.page(None, after, 2):
        found += [(tenant, status["study"]) for tenant, status in page]
        after = found[-1]
    assert found == [(t, s) for t in sorted((place.north, place.south)) for s in made]
    assert [s["study"] for _, s in place.studies.page(place.north, None, 10)] == made


def test_what_lapses_is_deleted_unless_something_is_to_come(place, study, make_study):
    old = time.time() - 10 * 86400
    busy = make_study("busy")
    place.send_all(place.north, busy)
    job = place.jobs.enqueue(place.north, busy.id)
    place.send_all(place.north, study)
    with place.database.transaction() as db:
        db.execute(update(table).values(changed=old))
        db.execute(update(jobs).values(changed=old))
    place.studies.sweep(None)
    place.studies.sweep(11)
    assert place.count(table.c.id) == 2
    place.studies.sweep(9)
    assert [s["study"] for _, s in place.studies.page(place.north, None, 9)] == [busy.id]
    place.jobs.cancel(job.id)
    place.studies.sweep(9)
    assert place.count(table.c.id) == 1
    with place.database.transaction() as db:
        db.execute(update(jobs).values(changed=old))
    place.studies.sweep(9)
    assert place.count(table.c.id) == 0
    assert place.files() == []


def test_a_failure_is_told_in_words(place, study):
    place.send_all(place.north, study)
    job = place.jobs.enqueue(place.north, study.id)
    with place.database.transaction() as db:
        values = {
            "state": "failed",
            "error": "it broke",
            "remedy": "Mend it.",
            "progress": json.dumps({"step": 1}),
        }
        db.execute(update(jobs).where(jobs.c.id == job.id).values(values))
    found = place.studies.status(place.north, study.id)
    assert (found["state"], found["error"], found["remedy"]) == ("failed", "it broke", "Mend it.")
    assert (found["progress"], found["job"]) == ({"step": 1}, job.id)
