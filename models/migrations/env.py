"""Alembic's entry point. It runs on the connection of `models.schema.upgrade`, inside that one's transaction."""

from alembic import context

import models

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=models.Table.metadata,
    transactional_ddl=True,  # ours on SQLite too: its transaction begins before the first statement
    render_as_batch=True,  # SQLite alters a table by copying it
)
context.run_migrations()
