"""Messages of studies: written once, counted, deleted with their study; for SQLite and PostgreSQL."""

from __future__ import annotations

import hashlib
import time

import pytest
from sqlalchemy import select, update

from blindtune.errors import PlanError, QuotaError
from blindtune.server import audit, tenants
from blindtune.server import messages as module
from blindtune.server.messages import Letter
from blindtune.server.service import Service
from blindtune.server.tables import blobs, messages

STUDY, OTHER = "5a" * 16, "b5" * 16


class Post:
    """A service with two tenants, and what north says in it."""

    def __init__(self, service):
        self.service = service
        self.north, self.south = (service.tenants.make(name) for name in ("north", "south"))

    def declare(self, content, item="public", study=STUDY, sender="north", tenant=None):
        letter = Letter(tenant or self.north, study, "first", item, sender)
        sha256 = hashlib.sha256(content).hexdigest()
        return letter, sha256, self.service.messages.post(letter, sha256, len(content))

    def say(self, content, item="public", study=STUDY):
        letter, sha256, missing = self.declare(content, item, study)
        if missing:
            upload = self.service.contents.announce(letter.tenant, sha256, len(content))
            upload.file.write_bytes(content)
            self.service.contents.place(upload)
        return letter

    def read(self, letter):
        sha256 = self.service.messages.find(letter)
        return sha256 and self.service.contents.path(letter.tenant, sha256).read_bytes()

    def used(self):
        with self.service.database.reading() as db:
            return tenants.used_bytes(db, self.north)

    def kept(self):
        with self.service.database.reading() as db:
            rows = [len(db.execute(select(table)).all()) for table in (messages, blobs)]
        return [*rows, len(list(self.service.contents._blobs.names()))]


@pytest.fixture
def post(database_url, tmp_path):
    service = Service.open(tmp_path / "server", database_url, insecure=True)
    yield Post(service)
    service.close()


def test_a_message_is_written_once_and_there_when_it_is_whole(post):
    letter, _, missing = post.declare(b"what is said")
    assert missing
    assert post.read(letter) is None
    assert post.say(b"what is said") == letter
    assert post.read(letter) == b"what is said"
    assert post.declare(b"what is said")[2] is False
    for other in (b"what is sold", b"what is said "):
        with pytest.raises(PlanError, match="another message lies there"):
            post.declare(other)
    assert post.read(letter) == b"what is said"
    # Another tenant sees nothing of it, and says what it likes.
    theirs, _, missing = post.declare(b"something else", tenant=post.south)
    assert missing
    assert post.read(theirs) is None


def test_messages_count_against_the_quota(post, monkeypatch):
    post.say(b"x" * 100)
    assert post.used() == 100 + tenants.MESSAGE_ROW
    post.service.tenants.limit(post.north, {"max_bytes": post.used() + tenants.MESSAGE_ROW - 1})
    with pytest.raises(QuotaError, match="MB are left"):
        post.declare(b"y" * 8, "zero")
    post.service.tenants.limit(post.north, {"max_bytes": 1 << 20})
    monkeypatch.setattr(module, "MOST", 1)
    with pytest.raises(QuotaError, match="more than 1 messages"):
        post.declare(b"y" * 8, "zero")
    assert post.declare(b"x" * 100)[2] is False
    assert post.declare(b"y" * 8, study=OTHER)[2]


def test_messages_go_with_their_study_and_shared_contents_stay(post):
    post.say(b"in both")
    post.say(b"in one", "zero")
    kept = post.say(b"in both", study=OTHER)
    assert post.kept() == [3, 2, 2]
    post.service.contents.sweep()
    assert not post.service.studies.delete(post.south, STUDY)
    assert post.service.studies.delete(post.north, STUDY)
    assert post.kept() == [1, 1, 1]
    assert post.read(kept) == b"in both"
    assert post.service.studies.delete(post.north, OTHER)
    assert post.kept() == [0, 0, 0]
    assert not post.service.studies.delete(post.north, OTHER)


def test_unread_contents_of_messages_outlive_a_sweep_and_old_studies_do_not(post):
    letter = post.say(b"what is said")
    post.say(b"what is new", study=OTHER)
    old = time.time() - 10 * tenants.DAY
    with post.service.database.transaction() as db:
        db.execute(update(blobs).values(created=old))
        db.execute(update(messages).where(messages.c.study == STUDY).values(created=old))
    post.service.sweep(11)
    assert post.read(letter) == b"what is said"
    # A word in it, and it lives on.
    post.say(b"one more", "zero")
    post.service.sweep(9)
    assert post.read(letter) == b"what is said"
    with post.service.database.transaction() as db:
        db.execute(update(messages).where(messages.c.study == STUDY).values(created=old))
    post.service.sweep(9)
    assert post.kept() == [1, 1, 1]


def test_messages_keep_an_opened_study_from_lapsing(post, study):
    from blindtune.server.tables import studies
    from blindtune.wire.bundle import Bundle

    post.service.studies.open_bundle(post.north, Bundle(study.data("north"), insecure=True).manifest)
    with post.service.database.transaction() as db:
        db.execute(update(studies).values(changed=1.0))
    post.say(b"what is said", study=study.id)
    post.service.sweep(9)
    assert post.service.studies.status(post.north, study.id) is not None


def test_the_log_tells_that_something_was_said_not_by_whom(post):
    post.say(b"what is said")
    post.say(b"what is said")
    with post.service.database.reading() as db:
        found = [entry for entry in audit.entries(db) if entry.action == "message.posted"]
    assert [entry.object for entry in found] == [f"{post.north}/{STUDY}"]
