"""vmferry's Celery tasks and everything beneath them; see docs/architecture.md for the layers."""
