"""The messages of studies under a joint key."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table."""
    names = ("tenant", "study", "stage", "item", "sender")
    op.create_table(
        "messages",
        *(sa.Column(name, sa.Text(), nullable=False) for name in names),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant"], ["tenants.id"], name=op.f("fk_messages_tenant"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint(*names, name=op.f("pk_messages")),
    )
    op.create_index(op.f("ix_messages_tenant_sha256"), "messages", ["tenant", "sha256"])
