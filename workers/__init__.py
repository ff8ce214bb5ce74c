"""The worker process: Celery's entry point, the asyncio pool, and the thin step from a ticket to the executor."""
