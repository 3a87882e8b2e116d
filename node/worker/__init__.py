"""Celery: the broker, the tasks and the worker. None of them holds state: that is in the database."""
