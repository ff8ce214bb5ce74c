"""Waiting for jobs without polling. Waiters stand apart from what they read, so that producers import no connection.

Register, read, then wait: an event between the read and the wait is in the stream, so none is missed (pub/sub missed
32 of 3,000 when its connection dropped, a stream none: celery-facts 5).
"""

from vessel.watch.calls import BLOCK_MS, Event, events_of, jobs_page, last_id, read_stream, read_streams, succeeded

__all__ = ["BLOCK_MS", "Event", "events_of", "jobs_page", "last_id", "read_stream", "read_streams", "succeeded"]
