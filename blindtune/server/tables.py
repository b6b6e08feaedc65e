"""The server's tables (SQLAlchemy Core), for SQLite and PostgreSQL alike.

Everything a tenant owns has the tenant in its primary key: two tenants may hold the same study without either
learning of the other. Times are seconds since the epoch; documents are JSON texts.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

JOB_STATES = ("queued", "running", "waiting", "done", "failed", "cancelled")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _study() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["tenant", "study"], ["studies.tenant", "studies.id"], ondelete="CASCADE")


def _tenant(*, key: bool = True, nullable: bool = False) -> Column[str]:
    owner = ForeignKey("tenants.id", ondelete="CASCADE")
    return Column("tenant", Text, owner, primary_key=key, nullable=nullable)


tenants = Table(
    "tenants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("max_bytes", BigInteger, nullable=False),
    # Jobs that are queued or running at a time, and cores of all that run.
    Column("max_jobs", Integer, nullable=False),
    Column("max_cores", Integer, nullable=False),
    Column("created", Double, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    # An operator's token belongs to no tenant.
    _tenant(key=False, nullable=True),
    Column("label", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
)

studies = Table(
    "studies",
    metadata,
    _tenant(),
    Column("id", Text, primary_key=True),
    # What all bundles of a study share: key, members, engine, parameters, program.
    Column("header", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("changed", Double, nullable=False),
)

bundles = Table(
    "bundles",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("study", Text, primary_key=True),
    # keys, data, start or head; only data has a member.
    Column("kind", Text, primary_key=True),
    Column("member", Text, primary_key=True),
    Column("manifest", Text, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("created", Double, nullable=False),
    _study(),
)

parts = Table(
    "parts",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("study", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("member", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["tenant", "study", "kind", "member"],
        ["bundles.tenant", "bundles.study", "bundles.kind", "bundles.member"],
        ondelete="CASCADE",
    ),
    Index(None, "tenant", "sha256"),
)

# Contents that are wholly there, once a tenant however many bundles name them.
blobs = Table(
    "blobs",
    metadata,
    _tenant(),
    Column("sha256", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("created", Double, nullable=False),
)

# Of studies under a joint key, the messages of its members: they may come before any bundle is opened, and so
# before the study has a row of its own.
messages = Table(
    "messages",
    metadata,
    _tenant(),
    Column("study", Text, primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("item", Text, primary_key=True),
    Column("sender", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created", Double, nullable=False),
    Index(None, "tenant", "sha256"),
)

# Contents on their way (tus): the bytes so far lie beside the database, in the incoming directory.
uploads = Table(
    "uploads",
    metadata,
    Column("id", Text, primary_key=True),
    _tenant(key=False),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created", Double, nullable=False),
    Column("changed", Double, nullable=False),
    # Whoever sends the same content goes on with what is there.
    UniqueConstraint("tenant", "sha256"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("study", Text, nullable=False),
    Column("state", Text, nullable=False),
    # Within a tenant the higher goes first, then the longer queued.
    Column("priority", Integer, nullable=False),
    Column("queued", Double, nullable=False),
    Column("started", Double),
    Column("changed", Double, nullable=False),
    # A worker's claim: whoever writes without it, or after it lapsed, changes nothing.
    Column("worker", Text),
    Column("lease", Double),
    # Claims since its last step; a job whose worker dies again and again is given up.
    Column("attempts", Integer, nullable=False),
    Column("cores", Integer, nullable=False),
    Column("error", Text, nullable=False),
    Column("remedy", Text, nullable=False),
    # Steps whose encrypted weights are kept, and the blob that holds them.
    Column("step", Integer, nullable=False),
    Column("checkpoint", Text),
    Column("progress", Text),
    Column("timing", Text),
    CheckConstraint(f"state IN {JOB_STATES}", name="state"),
    _study(),
    Index(None, "state", "priority", "queued"),
    Index(None, "tenant", "study"),
)

# Hosts whose workers claim jobs, with the SHA-256 of their contents' address; empty for a directory.
hosts = Table(
    "hosts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("blobs", Text, nullable=False),
    Column("seen", Double, nullable=False),
)

# Answers to a token's POSTs by idempotency key: the same request gets the same answer, another one a refusal.
idempotency = Table(
    "idempotency",
    metadata,
    Column("token", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request", Text, nullable=False),
    # Both are absent while the first is being answered.
    Column("status", Integer),
    Column("answer", Text),
    Column("created", Double, nullable=False),
)

# Append only, hash-chained: each row's hash covers the row and the hash before it.
audit = Table(
    "audit",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("time", Double, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
)
