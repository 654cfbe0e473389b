"""The HTTP side: translates requests into use cases."""
