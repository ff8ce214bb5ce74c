"""A batch of five minutes, followed by its progress alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.mcp.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.system, pytest.mark.timeout(900)]
LINES = 170
"""Of a model that takes 30 requests a minute: a full bucket, and more than four minutes of refill."""


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Standing]:
    """Serve under the limits of the free plan."""
    standing = Standing(tmp_path, VESSEL_GROQ_PLAN="free")
    standing.simulator_args = (*standing.simulator_args, "--plan", "free")
    with standing as stack:
        stack.start_worker()
        stack.mcp_url = stack.start_mcp()
        yield stack


async def test_a_batch_of_minutes_is_followed_by_its_progress(slow: Standing) -> None:
    """One call, which tells how many lines have ended until all have; nothing else is asked."""
    told: list[tuple[float, float | None, str]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message or ""))

    async with slow.client(slow.mcp_url) as client:
        requests = [{"prompt": f"number {n}", "model": "openai/gpt-oss-20b", "max_completion_tokens": 20}
                    for n in range(LINES)]  # fmt: skip
        made = await client.call_tool("submit_batch", {"requests": requests})
        assert made.structured_content is not None
        batch_id = made.structured_content["batch_id"]
        ended = await client.call_tool("get_batch", {"batch_id": batch_id, "wait_s": 800}, progress_callback=hear)
    assert ended.structured_content is not None
    assert ended.structured_content["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    done = [progress for progress, _, _ in told]
    assert len(done) > 20
    assert done == sorted(done)
    assert told[-1][:2] == (LINES, LINES)
    assert told[-1][2].startswith("completed")
