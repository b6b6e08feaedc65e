"""A member's memory: one order of stages, in a file that can be used or is refused."""

from __future__ import annotations

import pytest

from blindtune.errors import FederationError
from blindtune.federation.secagg.journal import Journal


@pytest.fixture
def journal(tmp_path):
    found = Journal(tmp_path / "journal")
    yield found
    found.close()


def test_stages_follow_each_other_once(journal):
    journal.begin(b"one", "study", (0, 0), "first", b"state")
    journal.advance(b"one", "first", "second", b"more")
    assert journal.stage(b"one") == ("second", b"more")
    with pytest.raises(FederationError, match="out of turn"):
        journal.advance(b"one", "first", "third", b"")
    assert journal.stage(b"one") == ("second", b"more")
    with pytest.raises(FederationError, match="not begun here"):
        journal.stage(b"two")


def test_a_new_session_forgets_what_those_of_its_study_held(journal):
    journal.begin(b"one", "study", (0, 0), "first", b"secret")
    journal.begin(b"other", "elsewhere", (0, 0), "first", b"kept")
    journal.begin(b"two", "study", (0, 1), "first", b"new")
    assert [journal.stage(d)[1] for d in (b"one", b"other", b"two")] == [b"", b"kept", b"new"]


def test_it_is_for_its_owner_alone(journal, tmp_path):
    journal.begin(b"one", "study", (0, 0), "first", b"secret")
    assert [p.stat().st_mode & 0o077 for p in tmp_path.iterdir()] == [0] * len(list(tmp_path.iterdir()))


def test_a_folder_is_no_journal(tmp_path):
    with pytest.raises(FederationError, match="cannot be used"):
        Journal(tmp_path)
