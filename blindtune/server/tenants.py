"""Tenants, what they may take, and the bearer tokens that speak for them or for the operator.

A token's text is ``bt_<id>_<secret>``; the database holds its SHA-256 alone, which is enough because the
secret is random and long. Who made a token, when it lapses and that it was revoked stays on record.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from blindtune.errors import InputError, QuotaError
from blindtune.server import audit
from blindtune.server.database import Database
from blindtune.server.tables import blobs, bundles, messages, tenants, tokens, uploads

Scope = Literal["read", "submit", "operator"]
SCOPES: tuple[Scope, ...] = ("read", "submit", "operator")
TENANT_SCOPES: tuple[Scope, ...] = ("read", "submit")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
DEFAULT = "default"
DAY = 86400.0
MESSAGE_ROW = 512
"""Bytes that a message counts besides its content."""

_TOKEN = re.compile(r"bt_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_GIVEN = "given"
"""The id of the token whose text the operator chose; its text names no id."""


@dataclass(frozen=True)
class Quota:
    """What a tenant may take at a time.

    Attributes:
        max_bytes: kept, uploads on their way included.
        max_jobs: queued or running.
        max_cores: of all its running jobs.
    """

    max_bytes: int = 1 << 40
    max_jobs: int = 100
    max_cores: int = 1 << 20


@dataclass(frozen=True)
class Caller:
    """Who a request comes from.

    Attributes:
        tenant: its identifier; None for an operator.
        token: the token's identifier, for the audit log.
    """

    tenant: str | None
    token: str
    scopes: frozenset[str]


class Tenants:
    """The tables of tenants and tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Tenants

    def make(self, name: str, quota: Quota | None = None) -> str:
        """The identifier of the tenant of a name, which is made if there is none.

        Args:
            quota: of a tenant that is made.

        Raises:
            InputError: not a name.
        """
        if not NAME.fullmatch(name):
            raise InputError(
                "a tenant's name has 1 to 32 of a-z, 0-9 and hyphens", remedy="Choose another --tenant."
            )
        with self._database.transaction() as db:
            found = db.execute(select(tenants.c.id).where(tenants.c.name == name)).scalar()
            if found is not None:
                return str(found)
            identifier = secrets.token_hex(8)
            limits = asdict(quota or Quota())
            db.execute(insert(tenants).values(id=identifier, name=name, created=time.time(), **limits))
            audit.append(db, "tenant.made", identifier)
            return identifier

    def limit(self, tenant: str, limits: Mapping[str, int]) -> None:
        """Change some of a tenant's quotas, by the names of :class:`Quota`'s fields."""
        with self._database.transaction() as db:
            db.execute(update(tenants).where(tenants.c.id == tenant).values(dict(limits)))
            audit.append(db, "tenant.changed", tenant)

    def names(self) -> dict[str, str]:
        """Every tenant's name, by its identifier."""
        with self._database.reading() as db:
            return {row.id: row.name for row in db.execute(select(tenants.c.id, tenants.c.name))}

    def find(self, name: str) -> str | None:
        """The identifier of the tenant of a name."""
        with self._database.reading() as db:
            found: str | None = db.execute(select(tenants.c.id).where(tenants.c.name == name)).scalar()
        return found

    # Tokens

    def issue(
        self,
        tenant: str | None,
        scopes: Iterable[str],
        *,
        label: str = "",
        days: float | None = None,
    ) -> tuple[str, str]:
        """A new token's identifier and its text, which is told this once.

        Args:
            tenant: an identifier; None for an operator's.
            days: until it lapses; None for never.

        Raises:
            InputError: scopes that do not go together.
        """
        identifier, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        text = f"bt_{identifier}_{secret}"
        self._insert(identifier, tenant, scopes, label, text, days)
        return identifier, text

    def set_given(self, tenant: str, text: str | None) -> None:
        """Make a text that the operator chose the one token of its kind, with all of a tenant's scopes.

        Args:
            text: None for no such token.
        """
        with self._database.transaction() as db:
            db.execute(delete(tokens).where(tokens.c.id == _GIVEN))
        if text is not None:
            self._insert(_GIVEN, tenant, TENANT_SCOPES, "set when the server was started", text, None)

    def tokens(self, tenant: str | None = None) -> list[RowMapping]:
        """All tokens, or a tenant's, without what they are checked against; the newest first."""
        columns = [c for c in tokens.c if c.name != "sha256"]
        query = select(*columns).order_by(tokens.c.created.desc(), tokens.c.id)
        if tenant is not None:
            query = query.where(tokens.c.tenant == tenant)
        with self._database.reading() as db:
            return list(db.execute(query).mappings())

    def revoke(self, identifier: str, tenant: str | None = None) -> bool:
        """Whether there was such a token (of the tenant, if one is given); it lets nobody in any more."""
        query = update(tokens).where(tokens.c.id == identifier)
        if tenant is not None:
            query = query.where(tokens.c.tenant == tenant)
        with self._database.transaction() as db:
            done = db.execute(query.values(revoked=func.coalesce(tokens.c.revoked, time.time())))
            if done.rowcount:
                audit.append(db, "token.revoked", identifier)
            return done.rowcount > 0

    def caller(self, text: str) -> Caller | None:
        """Whom a token speaks for; None if it is unknown, lapsed or revoked."""
        match = _TOKEN.fullmatch(text)
        named, digest = [match[1], _GIVEN] if match else [_GIVEN], _digest(text)
        with self._database.reading() as db:
            rows = list(db.execute(select(tokens).where(tokens.c.id.in_(named))).mappings())
        for row in rows:
            lapsed = row["expires"] is not None and row["expires"] <= time.time()
            if hmac.compare_digest(digest, row["sha256"]) and row["revoked"] is None and not lapsed:
                return Caller(row["tenant"], row["id"], frozenset(row["scopes"].split()))
        return None

    def _insert(
        self,
        identifier: str,
        tenant: str | None,
        scopes: Iterable[str],
        label: str,
        text: str,
        days: float | None,
    ) -> None:
        wanted = [s for s in SCOPES if s in set(scopes)]
        if not wanted or ("operator" in wanted) != (tenant is None) or (tenant is None and len(wanted) > 1):
            raise InputError(
                "a tenant's token has the scopes read, submit or both; operator goes alone, without a tenant",
                remedy="Make two tokens.",
            )
        now = time.time()
        row = {
            "id": identifier,
            "tenant": tenant,
            "label": label[:100],
            "scopes": " ".join(wanted),
            "sha256": _digest(text),
            "created": now,
            "expires": None if days is None else now + days * DAY,
        }
        try:
            with self._database.transaction() as db:
                db.execute(insert(tokens).values(row))
                audit.append(db, "token.made", identifier)
        except IntegrityError as error:
            raise InputError("there is no such tenant", remedy="Make it first.") from error


def used_bytes(db: Connection, tenant: str) -> int:
    """What a tenant keeps, and what it has announced."""
    kept = select(func.coalesce(func.sum(blobs.c.size), 0)).where(blobs.c.tenant == tenant)
    coming = select(func.coalesce(func.sum(uploads.c.size), 0)).where(uploads.c.tenant == tenant)
    length = func.length(bundles.c.manifest)
    told = select(func.coalesce(func.sum(length), 0)).where(bundles.c.tenant == tenant)
    said = select(func.count() * MESSAGE_ROW).select_from(messages).where(messages.c.tenant == tenant)
    parts = (query.scalar_subquery() for query in (kept, coming, told, said))
    return sum(int(size) for size in db.execute(select(*parts)).one())


def check_room(db: Connection, tenant: str, more: int) -> None:
    """Refuse what a tenant has no room for.

    Raises:
        QuotaError: it would keep more than it may.
    """
    most = int(db.execute(select(tenants.c.max_bytes).where(tenants.c.id == tenant)).scalar_one())
    left = most - used_bytes(db, tenant)
    if more > left:
        raise QuotaError(
            f"{more / 1e6:.1f} MB are too much: {max(left, 0) / 1e6:.1f} MB of {most / 1e6:.1f} MB are left",
            remedy="Delete studies that are no longer needed, or ask the server's operator for more room.",
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
