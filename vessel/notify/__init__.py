"""Signed webhooks: what is told when a job or batch has ended, to whom, how often, and what became of it."""
