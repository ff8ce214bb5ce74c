"""What a type checker must see through the public import; `make check` reads this file and nothing runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any, assert_type

from groq_vessel import (
    AsyncGroqClient,
    AsyncJobHandle,
    AsyncTokenStream,
    Attempt,
    CodeResult,
    GroqClient,
    GroqCompound,
    Job,
    JobEvent,
    JobFailed,
    JobHandle,
    JobState,
    Result,
    RoutePlan,
    Source,
    TokenStream,
    analyze,
    generate_code,
    query,
    research,
)


def seed() -> None:
    """The seed's snippets, as they stand."""
    client = GroqClient()
    assert_type(
        client.analyze(prompt="x", task_type="strategic_analysis", speed_priority="balanced"),
        Result,
    )
    assert_type(client.query(prompt="x", task_type="technical_qa", speed_priority="fast"), Result)
    assert_type(client.generate_code(prompt="x", language="python", speed_priority="maximum"), CodeResult)
    compound = GroqCompound()
    assert_type(compound.research(query="x", tools=["web_search"], max_results=10), Result)
    assert_type(compound.execute(task="x", code="import re; ...", tools=["code_execution"]), Result)
    assert_type(query("x"), Result)
    assert_type(analyze("x"), Result)
    assert_type(generate_code("x", language="python"), CodeResult)
    assert_type(research("x", tools=["web_search"]), Result)


def jobs(client: GroqClient) -> None:
    """Handles, results and lists."""
    handle = client.submit("x", tier="power", priority="batch", deadline="2h", on_outage="queue", idempotency_key="k")
    assert_type(handle, JobHandle)
    assert_type(handle.state(), JobState)
    assert_type(handle.result(timeout=1.5).cost_usd, Decimal)
    assert_type(handle.result().sources, list[Source])
    assert_type(handle.cancel(), str)
    assert_type(handle.events(), Iterator[JobEvent])
    assert_type(client.stream("x", tier="power", timeout=3), TokenStream)
    assert_type(list(client.submit("x", stream=True).stream(timeout=3)), list[str])
    assert_type(client.submit_many([{"prompt": "x"}]), list[JobHandle])
    assert_type(client.wait([handle, handle.id]), Iterator[Result[Any] | JobFailed])
    for ended in client.wait([handle]):
        if isinstance(ended, JobFailed):
            assert_type(ended.attempts, tuple[Attempt, ...])
    assert_type(client.jobs(state="failed", since="2h"), list[Job])
    assert_type(client.route("x", context={"requires_tools": True}), RoutePlan)
    client.query([{"role": "user", "content": "x"}], temperature=0.2, max_cost_usd="0.01", extra_body={"top_k": 3})


async def coroutines(client: AsyncGroqClient) -> None:
    """The same for coroutines."""
    assert_type(await client.query("x", timeout=3), Result)
    handle = await client.submit("x")
    assert_type(handle, AsyncJobHandle)
    assert_type(await handle.result(), Result)
    assert_type([piece async for piece in client.stream("x")], list[str])
    assert_type(handle.stream(), AsyncTokenStream)
    assert_type(client.wait([handle]), AsyncIterator[Result[Any] | JobFailed])


def slips(client: GroqClient) -> None:
    """What a type checker refuses; an ignore that is not needed fails the check."""
    client.query("x", task_type="poetry")  # type: ignore[arg-type]
    client.query("x", prioritty="batch")  # type: ignore[call-arg]
    client.query("x", stream=True)  # type: ignore[call-arg]
    client.submit("x", timeout=3)  # type: ignore[call-arg]
    client.submit("x", on_outage="panic")  # type: ignore[arg-type]
    client.research("x", tools=["browser"])  # type: ignore[list-item]
    generate_code(3)  # type: ignore[arg-type]
