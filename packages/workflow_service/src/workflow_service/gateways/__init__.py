"""The world behind the ports: PostgreSQL, the broker, the document parser."""
