"""Triggers: Celery messages that carry ids, and how they are published."""
