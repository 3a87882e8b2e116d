"""Celery: the broker, the tasks and the worker. Nothing here is the truth of anything."""
