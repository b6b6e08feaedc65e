"""Which studies lapse: those that nothing was done with for so long."""

from __future__ import annotations

import time

from sqlalchemy import Connection, func, select

from blindtune.server.jobs import ACTIVE
from blindtune.server.tables import jobs, messages, studies
from blindtune.server.tenants import DAY


def lapsed(db: Connection, keep_days: float) -> list[tuple[str, str]]:
    """Tenant and identifier of each, those of which there are only messages too."""
    old = time.time() - keep_days * DAY
    busy = select(jobs.c.id).where(
        jobs.c.tenant == studies.c.tenant,
        jobs.c.study == studies.c.id,
        jobs.c.state.in_(ACTIVE) | (jobs.c.changed >= old),
    )
    opened = select(studies.c.tenant, studies.c.id).where(studies.c.changed < old, ~busy.exists())
    row = select(studies.c.id).where(studies.c.tenant == messages.c.tenant, studies.c.id == messages.c.study)
    spoken = (
        select(messages.c.tenant, messages.c.study)
        .where(~row.exists())
        .group_by(messages.c.tenant, messages.c.study)
        .having(func.max(messages.c.created) < old)
    )
    return [(tenant, study) for query in (opened, spoken) for tenant, study in db.execute(query)]
