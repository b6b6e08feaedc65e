"""A service with a tenant whose bundles are placed without HTTP, and workers when they are wanted."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import select

from blindtune.server.jobs import Job
from blindtune.server.pool import Pool
from blindtune.server.service import Service
from blindtune.server.tables import blobs
from blindtune.wire.bundle import Bundle


def until(condition: Callable[[], Any], seconds: float = 240) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return found


def processes(among: psutil.Process | None = None) -> list[psutil.Process]:
    """Workers below a process."""
    found = []
    for process in (among or psutil.Process()).children(recursive=True):
        with suppress(psutil.Error):
            if "blindtune.server.process" in process.cmdline():
                found.append(process)
    return found


class Place:
    """A backend with a tenant, and workers when they are wanted."""

    def __init__(self, directory: Path, service: Service | None = None) -> None:
        self.service = service or Service.open(directory, insecure=True)
        self.tenant = self.service.tenants.make("north")

    def put(self, study: Any, tenant: str | None = None) -> None:
        """Place a study's bundles, as uploads do."""
        owner, kept, studies = tenant or self.tenant, self.service.contents, self.service.studies
        for path in study.bundles():
            manifest = Bundle(path, insecure=True).manifest
            for part in studies.open_bundle(owner, manifest):
                upload = kept.announce(owner, part.sha256, part.size)
                assert upload is not None
                shutil.copy(path / "parts" / part.name, upload.file)
                kept.place(upload)
            assert studies.complete(owner, study.id, manifest.kind, manifest.member)

    def start(self, study: Any, tenant: str | None = None) -> str:
        self.put(study, tenant)
        return self.service.jobs.enqueue(tenant or self.tenant, study.id).id

    def job(self, job: str) -> Job:
        found = self.service.jobs.get(job)
        assert found is not None
        return found

    def reached(self, job: str, step: int) -> None:
        until(lambda: self.job(job).step >= step)

    def done(self, job: str) -> Job:
        until(lambda: self.job(job).state not in ("queued", "running"))
        found = self.job(job)
        assert (found.state, found.error) == ("done", "")
        return found

    def head(self, study: Any, directory: Path, tenant: str | None = None) -> Path:
        """The head's bundle, laid out in a directory."""
        owner = tenant or self.tenant
        text = self.service.studies.head(owner, study.id)
        part = self.service.studies.head_part(owner, study.id, "weights")
        assert text is not None
        assert part is not None
        (directory / "parts").mkdir(parents=True)
        (directory / "manifest.json").write_text(text)
        shutil.copy(self.service.contents.path(owner, part.sha256), directory / "parts" / "weights")
        return directory

    def kept(self, study: Any) -> set[str]:
        """What lies there besides a study's bundles."""
        bundles = {p.sha256 for b in study.bundles() for p in Bundle(b, insecure=True).manifest.parts}
        with self.service.database.reading() as db:
            rows = set(db.execute(select(blobs.c.sha256).where(blobs.c.tenant == self.tenant)).scalars())
        files = {sha256 for tenant, sha256 in self.service.contents._blobs.names() if tenant == self.tenant}
        assert files == rows
        return files - bundles

    @contextmanager
    def working(self, workers: int = 1) -> Iterator[Pool]:
        pool = Pool(self.service, workers, 1)
        pool.start()
        try:
            yield pool
        finally:
            pool.stop()
