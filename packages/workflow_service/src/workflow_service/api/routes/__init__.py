"""One module per resource of the HTTP interface."""

PREFIX = "/api/v1"
"""Where they stand."""
