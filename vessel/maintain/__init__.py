"""Sweeps: promote parked jobs, rescue lost ones, expire late ones, reissue lost tickets, refresh, prune."""

from vessel.maintain.sweep import Sweeper

__all__ = ["Sweeper"]
