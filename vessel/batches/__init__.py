"""Batches: files of requests whose bytes live once, their lines as jobs, their documents rendered on read."""
