"""Jobs that wait for the hospitals of a joint key."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

STATE = "ck_jobs_state"


def upgrade() -> None:
    """Let a job be in one more state."""
    # SQLite makes the table anew, from what it was; which constraints it tells of depends on versions.
    with op.batch_alter_table("jobs", copy_from=_before()) as jobs:
        jobs.drop_constraint(op.f(STATE), type_="check")
        jobs.create_check_constraint(
            op.f(STATE), "state IN ('queued', 'running', 'waiting', 'done', 'failed', 'cancelled')"
        )


def _before() -> sa.Table:
    return sa.Table(
        "jobs",
        sa.MetaData(),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("study", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("queued", sa.Double(), nullable=False),
        sa.Column("started", sa.Double(), nullable=True),
        sa.Column("changed", sa.Double(), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease", sa.Double(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("cores", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("remedy", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("checkpoint", sa.Text(), nullable=True),
        sa.Column("progress", sa.Text(), nullable=True),
        sa.Column("timing", sa.Text(), nullable=True),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed', 'cancelled')", name=op.f(STATE)),
        sa.ForeignKeyConstraint(
            ["tenant", "study"],
            ["studies.tenant", "studies.id"],
            name=op.f("fk_jobs_tenant_study"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.Index(op.f("ix_jobs_state_priority_queued"), "state", "priority", "queued"),
        sa.Index(op.f("ix_jobs_tenant_study"), "tenant", "study"),
    )
