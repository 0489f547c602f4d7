"""Celery and Redis: doorbells, never truth."""
