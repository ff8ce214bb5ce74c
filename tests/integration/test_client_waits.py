"""A call that waits says what holds it."""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.integration.fake_worker import beat
from vessel.client import GroqClient, WaitTimeout, asking
from vessel.client.gates import explained
from vessel.control import set_budget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vessel.client.steps import Steps
    from vessel.jobs.model import Job
    from vessel.settings import Settings
    from vessel.watch.waiting import Waiting


@pytest.fixture
def client(settings: Settings) -> Iterator[GroqClient]:
    """Open a client."""
    with GroqClient(settings=settings) as opened:
        yield opened


def test_a_call_that_a_spend_cap_holds_says_so(
    client: GroqClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Which cap, until when, the way out; what its long prompt may cost counts; it is told once, however late."""
    monkeypatch.setattr(asking, "LOOK_S", 0.01)
    beat(client.runner, client.door, ["power"])
    looks: list[Job] = []

    def explained_late(of: asking.Asking, job: Job) -> Steps[Waiting | None]:
        looks.append(job)
        return None if len(looks) == 1 else (yield from explained(of, job))

    monkeypatch.setattr(asking, "explained", explained_late)
    client.runner.run(set_budget(client.door, None, day=Decimal("0.01")))
    with caplog.at_level(logging.WARNING, "groq_vessel"), pytest.raises(WaitTimeout, match=r"within 0\.5 s"):
        client.query("x" * 100_000, tier="power", max_tokens=10, timeout=0.5)
    (told,) = caplog.messages
    assert re.fullmatch(
        r"Job (job_\w+) waits until \d{4}-\d\d-\d\dT00:00:00\+00:00 at the earliest: the spend cap of the whole "
        r"vessel for this day does not allow it; `vessel budget show` tells more\. It goes on when the cap is raised "
        r"with `vessel budget set`; to give it up: `vessel cancel \1`\.", told,
    )  # fmt: skip
