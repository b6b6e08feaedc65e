"""Contents on their way and kept: rows and files that agree, whatever is cut off in between."""

from __future__ import annotations

import hashlib
import time

import pytest
from sqlalchemy import insert, select, update

from blindtune.errors import BundleError, QuotaError
from blindtune.server import contents as module
from blindtune.server.blobs import DirectoryBlobs, RemoteBlobs
from blindtune.server.contents import Contents
from blindtune.server.tables import blobs, bundles, parts, studies, uploads
from blindtune.server.tenants import Quota, Tenants

STUDY = "0" * 32


class Place:
    """Contents, and two tenants."""

    def __init__(self, database, directory, kept):
        self.database, self.blobs, self.incoming = database, kept, directory / "incoming"
        self.contents = Contents(database, kept, self.incoming)
        self.tenants = Tenants(database)
        self.north, self.south = (self.tenants.make(n, Quota(max_bytes=1000)) for n in ("north", "south"))

    def name(self, tenant, *contents):
        """Open a bundle that names contents; their SHA-256s."""
        found = [hashlib.sha256(c).hexdigest() for c in contents]
        key = {"tenant": tenant, "study": STUDY}
        with self.database.transaction() as db:
            db.execute(insert(studies).values(tenant=tenant, id=STUDY, header="", created=0, changed=0))
            key |= {"kind": "keys", "member": ""}
            db.execute(insert(bundles).values(**key, manifest="", complete=False, created=0))
            for number, (sha256, content) in enumerate(zip(found, contents, strict=True)):
                db.execute(insert(parts).values(**key, name=f"p-{number}", sha256=sha256, size=len(content)))
        return found

    def send(self, tenant, content):
        upload = self.contents.announce(tenant, hashlib.sha256(content).hexdigest(), len(content))
        upload.file.write_bytes(content)
        self.contents.place(upload)
        return upload.sha256

    def unname(self, tenant):
        with self.database.transaction() as db:
            db.execute(studies.delete().where(studies.c.tenant == tenant))

    def rows(self, table):
        with self.database.reading() as db:
            return db.execute(select(table)).all()


# Each database and each kind of blobs once: the two have nothing to do with each other.
pytestmark = pytest.mark.parametrize(
    ("database_url", "kind"),
    [("sqlite", "directory"), ("sqlite", "fsspec"), ("postgresql", "directory")],
    indirect=True,
)


@pytest.fixture
def kind(request):
    return request.param


@pytest.fixture
def place(kind, database, tmp_path):
    if kind == "directory":
        return Place(database, tmp_path, DirectoryBlobs(tmp_path / "blobs"))
    return Place(database, tmp_path, RemoteBlobs((tmp_path / "far").as_uri(), tmp_path / "cache"))


def test_a_content_is_announced_sent_and_kept_once(place):
    (sha256,) = place.name(place.north, b"content")
    upload = place.contents.announce(place.north, sha256, 7)
    assert upload.offset == 0
    upload.file.write_bytes(b"con")
    again = place.contents.announce(place.north, sha256, 7)
    assert (again.id, again.offset) == (upload.id, 3)
    assert place.contents.upload(place.north, upload.id).sha256 == sha256
    assert place.contents.upload(place.south, upload.id) is None
    upload.file.write_bytes(b"content")
    place.contents.place(upload)
    assert place.contents.path(place.north, sha256).read_bytes() == b"content"
    assert place.contents.announce(place.north, sha256, 7) is None
    assert place.rows(uploads) == []
    assert not list(place.incoming.iterdir())


def test_one_tenants_content_is_not_anothers(place):
    (sha256,) = place.name(place.north, b"content")
    place.send(place.north, b"content")
    with pytest.raises(BundleError, match="no opened bundle"):
        place.contents.announce(place.south, sha256, 7)
    place.name(place.south, b"content")
    assert place.contents.announce(place.south, sha256, 7) is not None
    with pytest.raises(FileNotFoundError):
        place.contents.path(place.south, sha256)


def test_what_no_bundle_names_is_not_taken(place):
    (sha256,) = place.name(place.north, b"content")
    for name, size in (("0" * 64, 7), (sha256, 8)):
        with pytest.raises(BundleError, match="no opened bundle"):
            place.contents.announce(place.north, name, size)


def test_room_is_taken_before_the_first_byte(place, monkeypatch):
    one, two, small = place.name(place.north, b"a" * 600, b"b" * 600, b"c" * 10)
    upload = place.contents.announce(place.north, one, 600)
    with pytest.raises(QuotaError, match="MB are left") as caught:
        place.contents.announce(place.north, two, 600)
    assert not caught.value.passing
    place.contents.abandon(upload)
    assert place.contents.announce(place.north, two, 600)
    monkeypatch.setattr(module, "MOST_UPLOADS", 1)
    with pytest.raises(QuotaError, match="too many uploads") as caught:
        place.contents.announce(place.north, small, 10)
    assert caught.value.passing


def test_forgotten_contents_are_really_gone_and_named_ones_stay(place, tmp_path):
    first, second = place.name(place.north, b"first content", b"second content")
    place.send(place.north, b"first content")
    place.contents.drop(place.north, [first, second])
    assert place.contents.path(place.north, first)
    begun = place.contents.announce(place.north, second, 14)
    begun.file.write_bytes(b"second")
    place.unname(place.north)
    place.contents.drop(place.north, [first, second])
    assert place.rows(blobs) == place.rows(uploads) == []
    files = [p for p in tmp_path.rglob("*") if p.is_file() and "state.sqlite" not in p.name]
    assert files == []


def test_the_servers_own_files_are_kept_whatever_the_quota(place, tmp_path):
    file = tmp_path / "made"
    for _ in range(2):
        file.write_bytes(b"x" * 5000)
        sha256 = place.contents.keep(place.north, file)
        assert not file.exists()
    assert place.contents.path(place.north, sha256).stat().st_size == 5000
    assert len(place.rows(blobs)) == 1


def test_a_sweep_sets_right_what_a_crash_left(place):
    (sha256,) = place.name(place.north, b"content")
    # Cut off between the blob and its row: the upload goes on, and nothing is lost.
    upload = place.contents.announce(place.north, sha256, 7)
    upload.file.write_bytes(b"content")
    place.blobs.put(place.north, sha256, upload.file)
    place.contents.sweep()
    assert [u.id for u in place.rows(uploads)] == [upload.id]
    assert (place.north, sha256) in place.blobs.names()
    # Lapsed: the row, the blob that has none and the bytes that have none go.
    (place.incoming / "stray").write_bytes(b"")
    with place.database.transaction() as db:
        db.execute(update(uploads).values(changed=time.time() - module.LAPSE - 1))
    place.contents.sweep()
    assert place.rows(uploads) == []
    assert list(place.blobs.names()) == []
    assert not list(place.incoming.iterdir())
    # Kept, named by nothing for a day.
    place.send(place.north, b"content")
    place.unname(place.north)
    place.contents.sweep()
    assert len(place.rows(blobs)) == 1
    with place.database.transaction() as db:
        db.execute(update(blobs).values(created=1.0))
    place.contents.sweep()
    assert place.rows(blobs) == []
    assert list(place.blobs.names()) == []


def test_a_content_that_is_on_its_way_again_is_not_removed(place):
    """Between forgetting and removing, the tenant sent it again."""
    (sha256,) = place.name(place.north, b"content")
    place.send(place.north, b"content")
    place.unname(place.north)
    with place.database.transaction() as db:
        gone = place.contents.forget(db, place.north, [sha256])
    place.name(place.north, b"content")
    place.send(place.north, b"content")
    place.contents.remove(place.north, gone)
    assert place.contents.path(place.north, sha256).read_bytes() == b"content"
