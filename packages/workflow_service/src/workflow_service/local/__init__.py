"""The embedded defaults: a PostgreSQL server and the processes of the service on one machine."""
