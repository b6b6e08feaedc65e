"""A service whose rows are put in by hand, and its application: for what is shown, not how it came there."""

from __future__ import annotations

import asyncio
import json

import httpx

from blindtune.server.api.app import create_app
from blindtune.server.events import News
from blindtune.server.service import Service
from blindtune.server.tables import bundles, jobs, parts, studies
from blindtune.server.tenants import Quota

PRIMES = [1099511627689, 1073741789, 1125899906842597]
HEADER = {
    "members": ["north", "south"],
    "parameters": {"ring_degree": 4096, "primes": PRIMES, "scale_bits": 30, "security": 128},
    "program": {"steps": 4, "started": False},
}


class Told:
    """A service with rows put in by hand, and its application."""

    def __init__(self, directory):
        self.service = Service.open(directory)
        self.tenants = {
            name: self.service.tenants.make(name, Quota(1000, 10, 4)) for name in ("clinic", "hospital")
        }
        self.tokens = {
            name: self.service.tenants.issue(tenant, ["read"])[1] for name, tenant in self.tenants.items()
        }
        self.tokens["operator"] = self.service.tenants.issue(None, ["operator"])[1]

    def insert(self, table, **row):
        with self.service.database.transaction() as db:
            db.execute(table.insert().values(row))

    def study(self, tenant, study, changed=1.0):
        whose = {"tenant": self.tenants[tenant], "study": study}
        self.insert(
            studies,
            tenant=whose["tenant"],
            id=study,
            header=json.dumps(HEADER),
            created=1.0,
            changed=changed,
        )
        for kind, member in (("keys", ""), ("data", "north")):
            bundle = {"kind": kind, "member": member, **whose}
            self.insert(bundles, manifest="{}", complete=True, created=1.0, **bundle)
            self.insert(parts, name="galois", sha256=kind, size=100, **bundle)

    def job(self, tenant, study, job, **given):
        row = {"state": "queued", "priority": 0, "queued": 1.0, "changed": 2.0, "attempts": 0, "cores": 0}
        row |= {"error": "", "remedy": "", "step": 0, **given}
        self.insert(jobs, id=job, tenant=self.tenants[tenant], study=study, **row)

    def change(self, table, where, **values):
        with self.service.database.transaction() as db:
            db.execute(table.update().where(where).values(values))

    def news(self, tenant=None):
        return News(self.service.database, tenant and self.tenants[tenant])

    def get(self, path, token=None, client="127.0.0.1", looks=1, **headers):
        """The answer; streams of events end after some looks."""
        left = iter(range(looks))
        app = create_app(self.service, stopping=lambda: next(left, None) is None)

        async def ask():
            transport = httpx.ASGITransport(app, client=(client, 1))
            if token:
                headers["Authorization"] = f"Bearer {self.tokens.get(token, token)}"
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
                return await http.get(path, headers=headers)

        return asyncio.run(ask())
