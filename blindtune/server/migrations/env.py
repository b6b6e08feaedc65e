"""Run by Alembic within the transaction of :class:`blindtune.server.database.Database`."""

from __future__ import annotations

from alembic import context

from blindtune.server.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite changes a column by writing its table anew.
    render_as_batch=True,
)
context.run_migrations()
