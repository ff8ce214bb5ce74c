"""What a type checker must see through the public import; `make check` reads this file and nothing runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypedDict, assert_type

from groq_vessel import (
    AsyncBatchHandle,
    AsyncGroqClient,
    AsyncJobHandle,
    AsyncTokenStream,
    Attempt,
    Batch,
    BatchHandle,
    BatchResult,
    BatchStatus,
    CodeResult,
    Estimate,
    Fault,
    GroqClient,
    GroqCompound,
    InvalidAnswer,
    Job,
    JobEvent,
    JobFailed,
    JobHandle,
    JobState,
    Result,
    RoutePlan,
    Source,
    TokenStream,
    ToolCall,
    analyze,
    generate_code,
    query,
    research,
)
from pydantic import BaseModel

if TYPE_CHECKING:
    from concurrent.futures import Executor


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


def batches(client: GroqClient) -> None:
    """Batches: made, followed, read and looked at."""
    handle = client.submit_batch("in.jsonl", window="24h", metadata={"team": "a"}, idempotency_key="k")
    assert_type(handle, BatchHandle)
    assert_type(client.submit_batch([{"prompt": "x"}]), BatchHandle)
    assert_type(handle.id, str)
    assert_type(handle.estimate, Estimate | None)
    assert_type(handle.progress(), Batch)
    assert_type(handle.progress().status, BatchStatus)
    assert_type(handle.progress().errors, tuple[Fault, ...])
    assert_type(handle.wait(timeout=1.5), Batch)
    assert_type(handle.cancel(), Batch)
    assert_type(handle.results(), Iterator[BatchResult])
    assert_type(handle.errors(follow=False), Iterator[BatchResult])
    assert_type([line.custom_id for line in handle.results()], list[str])
    assert_type(client.batch("batch_1"), BatchHandle)
    assert_type(client.batches(limit=5), list[Batch])
    assert_type(client.estimate_batch("in.jsonl"), Estimate)
    assert_type(client.estimate_batch([]).worst_cost_usd, Decimal)
    assert_type(client.estimate_batch([]).seconds, float | None)


async def batch_coroutines(client: AsyncGroqClient) -> None:
    """The same for coroutines."""
    handle = await client.submit_batch([{"prompt": "x"}], window="7d")
    assert_type(handle, AsyncBatchHandle)
    assert_type(await handle.progress(), Batch)
    assert_type(await handle.wait(), Batch)
    assert_type(await handle.cancel(), Batch)
    assert_type([line async for line in handle.results()], list[BatchResult])
    assert_type(await client.batches(), list[Batch])
    assert_type(await client.estimate_batch("in.jsonl"), Estimate)


async def coroutines(client: AsyncGroqClient) -> None:
    """The same for coroutines."""
    assert_type(await client.query("x", timeout=3), Result)
    handle = await client.submit("x")
    assert_type(handle, AsyncJobHandle)
    assert_type(await handle.result(), Result)
    assert_type([piece async for piece in client.stream("x")], list[str])
    assert_type(handle.stream(), AsyncTokenStream)
    assert_type(client.wait([handle]), AsyncIterator[Result[Any] | JobFailed])


class City(BaseModel):
    """What an answer is to be."""

    name: str


@dataclass
class Point:
    """The same as a dataclass."""

    x: int


class Movie(TypedDict):
    """The same as a TypedDict."""

    title: str


def values(client: GroqClient) -> None:
    """`response_model` tells what `parsed` is; without one it is None."""
    assert_type(client.query("x").parsed, None)
    assert_type(client.query("x", response_model=None).parsed, None)
    assert_type(client.query("x", response_model=City), Result[City])
    assert_type(client.query("x", response_model=City, tier="power", timeout=3).parsed, City)
    assert_type(client.analyze("x", response_model=list[City]).parsed, list[City])
    assert_type(client.query("x", response_model=Point).parsed, Point)
    assert_type(client.query("x", response_model=Movie).parsed, Movie)
    assert_type(client.query("x", response_model=dict[str, int]).parsed, dict[str, int])
    assert_type(client.submit("x", response_model=City), JobHandle[City])
    assert_type(client.submit("x", response_model=City).result().parsed, City)
    assert_type(client.submit("x").result().parsed, None)
    assert_type(client.result("job_1", response_model=City).parsed, City)
    assert_type(client.result("job_1", 3).parsed, None)
    assert_type(query("x", response_model=City).parsed, City)
    assert_type(analyze("x", response_model=City).parsed, City)
    assert_type(client.query("x").tool_calls, list[ToolCall])
    assert_type(client.query("x", response_model=City).repairs, tuple[Result[Any], ...])
    assert_type(client.generate_code("x").parsed, None)
    plain: Result = client.query("x")
    some: Result[Any] = client.query("x", response_model=City)
    del plain, some


async def later_values(client: AsyncGroqClient) -> None:
    """The same for coroutines."""
    assert_type((await client.query("x", response_model=City)).parsed, City)
    assert_type((await client.analyze("x")).parsed, None)
    assert_type((await (await client.submit("x", response_model=City)).result()).parsed, City)
    assert_type((await client.result("job_1", response_model=list[City])).parsed, list[City])


async def elsewhere(client: GroqClient, threads: Executor) -> None:
    """Methods go through executors, with their arguments checked."""
    assert_type(threads.submit(client.query, "x", tier="power").result(), Result)
    assert_type(list(threads.map(client.query, ["x"])), list[Result])
    assert_type(await asyncio.to_thread(client.analyze, "x", response_model=City), Result[City])


def failures(client: GroqClient) -> None:
    """A failure is read by its kind."""
    try:
        client.query("x", response_model=City)
    except InvalidAnswer as error:
        assert_type(error.result, Result)
        assert_type(error.faults, tuple[str, ...])
    except JobFailed as error:
        assert_type(error.attempts, tuple[Attempt, ...])
    except TimeoutError:
        pass


def slips(client: GroqClient) -> None:
    """What a type checker refuses; an ignore that is not needed fails the check."""
    client.query("x", task_type="poetry")  # type: ignore[call-overload]
    client.query("x", prioritty="batch")  # type: ignore[call-overload]
    client.query("x", stream=True)  # type: ignore[call-overload]
    client.query("x", response_model="City")  # type: ignore[call-overload]
    client.submit("x", timeout=3)  # type: ignore[call-overload]
    client.submit("x", on_outage="panic")  # type: ignore[call-overload]
    client.generate_code("x", response_model=City)  # type: ignore[call-arg]
    client.research("x", tools=["browser"])  # type: ignore[list-item]
    client.submit_batch(3)  # type: ignore[arg-type]
    client.submit_batch([], completion_window="24h")  # type: ignore[call-arg]
    generate_code(3)  # type: ignore[arg-type]
