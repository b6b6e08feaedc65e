"""Idempotency keys."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from blindtune.errors import PlanError
from blindtune.server import answers as module
from blindtune.server.answers import Answer, Answers
from blindtune.server.tables import idempotency


@pytest.fixture
def answers(database):
    return Answers(database)


def test_the_same_request_has_the_same_answer(answers):
    assert answers.begin("token", "key", "request") is None
    with pytest.raises(PlanError, match="still being answered"):
        answers.begin("token", "key", "request")
    answers.finish("token", "key", 202, "text", secret=False)
    assert answers.begin("token", "key", "request") == Answer(202, "text")
    with pytest.raises(PlanError, match="another request"):
        answers.begin("token", "key", "another")
    assert answers.begin("other", "key", "another") is None


def test_a_request_that_came_to_nothing_or_was_lost_is_done_again(answers, database):
    assert answers.begin("token", "key", "request") is None
    answers.abandon("token", "key")
    assert answers.begin("token", "key", "request") is None
    with database.transaction() as db:
        db.execute(update(idempotency).values(created=idempotency.c.created - module.STALE - 1))
    assert answers.begin("token", "key", "request") is None


def test_long_and_secret_answers_are_not_kept(answers, database):
    for key, text, secret in (("long", "x" * (module.LONGEST + 1), False), ("secret", "bt_1_2", True)):
        answers.begin("token", key, "request")
        answers.finish("token", key, 201, text, secret=secret)
        assert answers.begin("token", key, "request") == Answer(201, None)
    with database.reading() as db:
        assert list(db.execute(select(idempotency.c.answer)).scalars()) == [None, None]


def test_what_is_kept_is_bounded_and_lapses(answers, database, monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    for number in range(5):
        answers.begin("token", f"key-{number}", "request")
    with database.reading() as db:
        assert set(db.execute(select(idempotency.c.key)).scalars()) == {"key-2", "key-3", "key-4"}
    with database.transaction() as db:
        db.execute(update(idempotency).values(created=1.0))
    answers.sweep()
    with database.reading() as db:
        assert db.execute(select(idempotency)).all() == []
