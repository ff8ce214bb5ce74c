"""What a worker counts as refused, and that it is told to Redis once it can be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from vessel.errors import RedisUnreachable
from vessel.execute.measuring import Measured
from vessel.keyspace.names import Keys
from vessel.registry import Vessel
from vessel.upstream.outcome import Failure, Reason

KEYS = Keys("x")
JOB = SimpleNamespace(created_at=0, priority="normal")
CALL: Any = SimpleNamespace(model=SimpleNamespace(id="m", vessel=Vessel.GROQ), tier="power", job=JOB, number=1)


class Runner:
    """Keeps what it is told, or is away."""

    def __init__(self) -> None:
        """Be there."""
        self.told: list[tuple[Any, ...]] = []
        self.away = False

    async def run(self, call: Any) -> None:
        """Take a call."""
        if self.away:
            raise RedisUnreachable
        self.told.append(call.command)


async def test_refusals_are_told_with_the_next_beat_that_arrives() -> None:
    """By whom, and for which limit or reason; what failed otherwise is no refusal; nothing is told twice."""
    measured, runner = Measured(), Runner()
    measured.refused(CALL, Failure("m", Reason.RATE_LIMITED, "", limit_name="tpm"))
    measured.refused(CALL, Failure("m", Reason.MAINTENANCE, "", detail="maintenance"))
    for reason, limit in ((Reason.RATE_LIMITED, "rpm"), (Reason.OVER_CAPACITY, ""), (Reason.SERVER_ERROR, "")):
        measured.attempt(CALL, Failure("m", reason, "", limit_name=limit), 0)
    runner.away = True
    with pytest.raises(RedisUnreachable):
        await measured.keep_refusals(cast("Any", runner), KEYS)
    runner.away = False
    for _ in range(2):
        await measured.keep_refusals(cast("Any", runner), KEYS)
    (told,) = runner.told
    assert [part for part in told if "|" in str(part)] == [
        "gate|tpm|m", "gate|maintenance|m", "groq|rpm|m", "groq|over_capacity|m",
    ]  # fmt: skip
