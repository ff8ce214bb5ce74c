"""A worker learns from its answers how much to ask for, and a cut answer teaches it otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import wait_until_async
from vessel.execute import Executor, process
from vessel.gate.history import LEAST_ANSWERS, LEAST_CAP, observe, read_history
from vessel.registry import load_registry
from vessel.routing.output import default_output_tokens
from vessel.upstream.outcome import Success, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vessel.settings import Settings

pytestmark = pytest.mark.redis("valkey")
MODEL = load_registry().model("openai/gpt-oss-20b")
KIND = "qa.text"


class Upstream:
    """Answers in ten tokens, or says that its bound cut it; notes the bounds."""

    def __init__(self) -> None:
        """Start with nothing asked."""
        self.bounds: list[int] = []

    async def call(self, model: str, body: dict[str, Any], *, deadline_s: float, attempt: str) -> Success:
        """Note the bound."""
        assert (deadline_s, attempt) > (0, "")
        self.bounds.append(body["max_completion_tokens"])
        cut = body["messages"][-1]["content"] == "long"
        usage = Usage(10, self.bounds[-1] if cut else 10)
        return Success(model, b'{"choices":[]}', usage, "req", "length" if cut else "stop")

    async def list_models(self) -> tuple[dict[str, Any], ...]:
        """List every model of the registry."""
        return tuple({"id": model.id} for model in load_registry().routable())

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """Put an upstream of ours in Groq's place."""
    ours = Upstream()
    monkeypatch.setattr(process, "GroqUpstream", lambda *_: ours)
    return ours


@pytest.fixture
async def executor(settings: Settings, redis_url: str, upstream: Upstream) -> AsyncIterator[Executor]:
    """Give an open executor of one tier."""
    assert upstream.bounds == []
    opened = await Executor.open(settings, redis_url=redis_url, tiers=["speed_demon"], worker="w", slots=1)
    yield opened
    await opened.close()


async def ask(executor: Executor, prompt: str, **body: int) -> None:
    """Run one job of a named task type to its end."""
    prepared = executor.door.prepare(
        {"messages": [{"role": "user", "content": prompt}]} | body,
        {"tier": "speed_demon", "task_type": "qa"},
        availability=executor.availability,
    )
    accepted = await executor.runner.run(executor.door.create(prepared))
    (served,) = await executor.run([(accepted.id, 0)], "speed_demon")
    assert served["state"] == "succeeded"


async def counted(executor: Executor) -> float:
    """Count what is remembered."""
    key = executor.keys.output(executor.settings.org, MODEL.id)
    return sum((await executor.runner.run(read_history(key))).get(KIND, {}).values())


async def test_short_answers_lower_the_bound_and_a_cut_one_lifts_it(executor: Executor, upstream: Upstream) -> None:
    """From default to learned and back, over Redis; a bound of the caller's own is kept and teaches nothing."""
    default, key = default_output_tokens(MODEL), executor.keys.output(executor.settings.org, MODEL.id)
    await executor.runner.run_all([observe(key, KIND, 10)] * (LEAST_ANSWERS - 1))
    await ask(executor, "short")
    await wait_until_async(lambda: _is(executor, LEAST_ANSWERS))
    await executor.history.refresh()
    await ask(executor, "short")
    await ask(executor, "short", max_tokens=77)
    await ask(executor, "long")
    await ask(executor, "short")
    await wait_until_async(lambda: _is(executor, LEAST_ANSWERS + 3))
    await executor.history.refresh()
    await ask(executor, "short")

    assert upstream.bounds == [default, LEAST_CAP, 77, LEAST_CAP, default, default]


async def _is(executor: Executor, count: int) -> bool:
    return await counted(executor) == count
