"""Settings, and the Celery and logging configuration made from them."""
