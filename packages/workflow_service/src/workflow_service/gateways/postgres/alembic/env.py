"""What Alembic runs around the migrations: one transaction, on the connection that the migrator hands over."""

from alembic import context

from workflow_service.gateways.postgres.schema import SCHEMA, VERSION_TABLE

if context.is_offline_mode():
    # Named parameters: with the driver's own style a percent sign would come out doubled.
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        version_table=VERSION_TABLE,
        version_table_schema=SCHEMA,
    )
    with context.begin_transaction():
        context.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        context.run_migrations()
else:
    # The transaction is the migrator's, which has locked out all others before.
    context.configure(
        connection=context.config.attributes["connection"],
        version_table=VERSION_TABLE,
        version_table_schema=SCHEMA,
    )
    context.run_migrations()
