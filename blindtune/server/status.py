"""What a study's state is for the outside, read from its bundles and its latest job."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, func, select

from blindtune.server.jobs import latest
from blindtune.server.tables import bundles, parts, studies


def study_status(db: Connection, tenant: str, study: str) -> dict[str, Any]:
    """The state of a study that exists.

    ``uploading`` while a bundle is missing, ``ready`` before the first job, then the latest job's state.
    """
    where = (studies.c.tenant == tenant, studies.c.id == study)
    row = db.execute(select(studies).where(*where)).mappings().one()
    header = json.loads(row["header"])
    query = select(bundles.c.kind, bundles.c.member).where(
        bundles.c.tenant == tenant, bundles.c.study == study, bundles.c.complete
    )
    there = {(kind, member) for kind, member in db.execute(query)}
    uploaded = [m for m in header["members"] if ("data", m) in there]
    keys = ("keys", "") in there
    start = ("start", "") in there if header["program"]["started"] else None
    whole = keys and start is not False and uploaded == header["members"]
    job = latest(db, tenant, study)
    size = select(func.coalesce(func.sum(parts.c.size), 0)).where(
        parts.c.tenant == tenant, parts.c.study == study
    )
    return {
        "study": study,
        "state": job.state if job and whole else "ready" if whole else "uploading",
        "error": job.error if job else "",
        "remedy": job.remedy if job else "",
        "created": row["created"],
        "changed": max(row["changed"], job.changed if job else 0.0),
        "members": header["members"],
        "uploaded": uploaded,
        "bundles": {
            "here": len(uploaded) + keys + bool(start),
            "expected": len(header["members"]) + 1 + (start is not None),
        },
        "keys": keys,
        "start": start,
        "bytes": int(db.execute(size).scalar_one()),
        "job": job.id if job else None,
        "progress": job.progress if job else None,
    }


def study_page(
    db: Connection, tenant: str | None, after: tuple[str, str] | None, count: int
) -> list[tuple[str, dict[str, Any]]]:
    """States of a tenant's studies, or of everybody's, each with its tenant, in order of identifiers.

    Whoever is told of everybody's is not told what members are called.

    Args:
        after: tenant and identifier that the page begins after.
    """
    query = select(studies.c.tenant, studies.c.id).order_by(studies.c.tenant, studies.c.id).limit(count)
    if tenant is not None:
        query = query.where(studies.c.tenant == tenant)
    if after is not None:
        owner, study = studies.c.tenant, studies.c.id
        query = query.where((owner > after[0]) | ((owner == after[0]) & (study > after[1])))
    found = [
        (r["tenant"], study_status(db, r["tenant"], r["id"])) for r in db.execute(query).mappings().all()
    ]
    return found if tenant is not None else [(owner, without_names(status)) for owner, status in found]


def without_names(status: dict[str, Any]) -> dict[str, Any]:
    """A study's state for an operator: how many bundles there are, not whose."""
    return {name: value for name, value in status.items() if name not in ("members", "uploaded")}
