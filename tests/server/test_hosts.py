"""Several hosts at one database: let in where they share everything, and refused before anything is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from blindtune.errors import InputError
from blindtune.server.database import Database
from blindtune.server.hosts import Hosts
from blindtune.server.lending import lend
from blindtune.server.service import Service
from blindtune.server.tables import hosts
from tests.server.placing import Place, until


def test_one_host_comes_and_goes(database: Database) -> None:
    there = Hosts(database)
    there.join("one", None)
    # After a crash it comes again.
    there.join("one", None)
    there.beat("one")
    with pytest.raises(InputError, match="another host uses this database"):
        there.join("two", None)
    there.leave("one")
    there.join("two", "memory://other")


def test_a_host_that_is_not_heard_of_makes_room(database: Database) -> None:
    there = Hosts(database)
    there.join("one", None)
    with database.transaction() as connection:
        connection.execute(update(hosts).values(seen=1.0))
    there.join("two", None)


def test_hosts_share_postgresql_and_contents_or_nothing(database: Database) -> None:
    there = Hosts(database)
    there.join("one", "s3://bucket/prefix")
    for elsewhere in (None, "s3://bucket/other"):
        with pytest.raises(InputError, match="another host"):
            there.join("two", elsewhere)
    if database.postgresql:
        there.join("two", "s3://bucket/prefix")
    else:
        with pytest.raises(InputError, match="need PostgreSQL"):
            there.join("two", "s3://bucket/prefix")


def test_a_worker_elsewhere_needs_what_can_be_shared(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="SQLite serves one host alone"):
        lend(tmp_path / "work", f"sqlite:///{tmp_path / 'state.sqlite'}", "memory://")
    assert not (tmp_path / "work").exists()


LEND = """
import sys
from contextlib import closing
from pathlib import Path
from blindtune.server.lending import lend
lend(Path(sys.argv[1]), sys.argv[2], sys.argv[3], cores=1, insecure=True)
"""


def test_a_worker_on_a_host_of_its_own_trains_a_servers_job(
    study: Any, postgresql_url: str, tmp_path: Path
) -> None:
    work, blobs = tmp_path / "worker", f"file://{tmp_path / 'shared'}"
    service = Service.open(tmp_path / "server", postgresql_url, blobs, insecure=True)
    with closing(service):
        place = Place(tmp_path / "server", service)
        job = place.start(study)
        command = [sys.executable, "-c", LEND, str(work), postgresql_url, blobs]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as worker:
            until(lambda: worker.poll() is not None or place.job(job).state not in ("queued", "running"))
            worker.send_signal(signal.SIGTERM)
            _, complained = worker.communicate(timeout=120)
        assert (worker.returncode, complained) == (0, "")
        place.done(job)
        assert np.abs(study.decrypt(place.head(study, tmp_path / "head")) - study.dense()).max() < 1e-3
    assert not (work / "work").exists()
