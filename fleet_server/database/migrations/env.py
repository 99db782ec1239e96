"""Alembic's entry: run the migrations on the connection that Database.migrate hands over."""

from alembic import context

from fleet_server.database.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
with context.begin_transaction():
    context.run_migrations()
