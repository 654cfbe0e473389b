"""What the service does, in terms of ports: submit, follow, execute, keep documents."""
