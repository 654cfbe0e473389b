"""The Celery side: translates messages into use cases."""
