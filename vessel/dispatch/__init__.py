"""How work reaches workers: queues by tier and lane, the ticket that travels, and the Celery app."""
