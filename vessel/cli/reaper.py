"""End a group of processes once their owner has gone, however it went: kill -9 included.

Run as `python reaper.py FD GRACE`; this process leads the group. Standard input ends when the owner does: nothing is
ever written to it. FD ends when the last member does, since each holds the other end. Imports nothing of Vessel.
"""

from __future__ import annotations

import os
import select
import signal
import sys


def main(members: int, grace_s: float) -> None:
    """Wait for the owner's end, then send SIGTERM to the group, and SIGKILL to what is left after the grace."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 64):
        pass
    os.killpg(0, signal.SIGTERM)
    gone, _, _ = select.select([members], [], [], grace_s)
    if not gone:
        os.killpg(0, signal.SIGKILL)  # this process is in the group, so it is its last act


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
