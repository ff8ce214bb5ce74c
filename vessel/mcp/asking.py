"""The tools that ask and wait: query, analyze, generate_code, research and execute."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import TYPE_CHECKING, Any

from mcp_types import ToolAnnotations

from vessel.errors import NoWorkers, RedisUnreachable, WaitTimeout
from vessel.keyspace.script import command, word
from vessel.mcp.answers import AnswerGiven, CodeGiven, SourcedGiven, answered, cut, result_fields
from vessel.mcp.asks import Execute, GenerateCode, Query, Research
from vessel.mcp.attending import attended, followed
from vessel.mcp.catalog import Tool
from vessel.wire import Priority, TaskType

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from vessel.client import AsyncGroqClient, AsyncJobHandle, Result
    from vessel.mcp.asks import Waiting
    from vessel.mcp.catalog import Answer, Call

LONGEST_SOURCE = 2000
ASKS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True)

Options = dict[str, Any]


async def query(call: Call, asked: Query) -> Answer:
    """Ask and wait."""
    return answered(result_fields(await _plain(call, asked, {}), asked.max_chars))


async def analyze(call: Call, asked: Query) -> Answer:
    """Ask for an analysis and wait."""
    more = {"task_type": TaskType.STRATEGIC_ANALYSIS}
    return answered(result_fields(await _plain(call, asked, more), asked.max_chars))


async def generate_code(call: Call, asked: GenerateCode) -> Answer:
    """Ask for code and wait."""

    async def ask(client: AsyncGroqClient, options: Options) -> Any:
        return await client.generate_code(asked.prompt, asked.language, **options)

    result = await _verb(call, asked, ask)
    code, _ = cut(result.code, asked.max_chars)
    return answered(result_fields(result, asked.max_chars) | {"code": code}, shown=("code",))


async def research(call: Call, asked: Research) -> Answer:
    """Ask a model that may search, and wait."""

    async def ask(client: AsyncGroqClient, options: Options) -> Any:
        return await client.research(asked.query, asked.tools, asked.max_results, **options)

    return _sourced(await _verb(call, asked, ask), asked.max_chars)


async def execute(call: Call, asked: Execute) -> Answer:
    """Have code run, and wait."""

    async def ask(client: AsyncGroqClient, options: Options) -> Any:
        return await client.execute(asked.task, asked.code, asked.tools, **options)

    return _sourced(await _verb(call, asked, ask), asked.max_chars)


def _sourced(result: Result, most: int) -> Answer:
    sources = [
        {"url": source.url, "title": source.title, "content": source.content[:LONGEST_SOURCE]}
        for source in result.sources
    ]
    tools = [_bounded(tool) for tool in result.executed_tools]
    return answered(result_fields(result, most) | {"sources": sources, "executed_tools": tools})


def _bounded(value: Any) -> Any:
    """Cut long texts within a document."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST_SOURCE else value[:LONGEST_SOURCE] + "..."
    if isinstance(value, dict):
        return {key: _bounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_bounded(inner) for inner in value[:50]]
    return value


async def _verb(call: Call, asked: Waiting, ask: Callable[[AsyncGroqClient, Options], Awaitable[Any]]) -> Any:
    """Ask by a verb of the client, which cancels its job when it is cancelled itself."""
    client, options = call.client, asked.options() | {"timeout": asked.timeout_s}
    if call.wants_progress:  # the key leads to the job before the verb gives it
        options.setdefault("idempotency_key", f"mcp-{secrets.token_hex(16)}")
    find = partial(_named, call, options.get("idempotency_key", ""))
    return await _waited(attended(call, followed(call, ask(client, options), find)))


async def _plain(call: Call, asked: Query, defaults: Options) -> Any:
    """Ask in plain words.

    The answer is streamed, as then its tokens can be told, and a worker drops it by itself when nobody reads it any
    more: also this process may be killed. Groq streams no structured output.
    """
    options = defaults | asked.options()
    if asked.json_schema is None:
        return await _waited(attended(call, _streamed(call, asked, options)))
    schema = {"name": "answer", "schema": asked.json_schema}
    options["response_format"] = {"type": "json_schema", "json_schema": schema}

    async def ask(client: AsyncGroqClient, more: Options) -> Any:
        return await client.query(asked.prompt, **defaults | more | options)

    return await _verb(call, asked, ask)


async def _streamed(call: Call, asked: Query, given: Options) -> Any:
    client = call.client
    options: Options = {"priority": Priority.INTERACTIVE, **given}
    if not any((await client.runner.run(client.door.alive())).values()):
        raise NoWorkers
    made = asyncio.ensure_future(client.submit(asked.prompt, stream=True, **options))
    try:
        handle = await asyncio.shield(made)
        return await _read(call, handle, asked.timeout_s)
    except asyncio.CancelledError:
        handle = await made
        if not handle.existing:
            await client.cancel(handle.id)
        raise


_lingering: set[asyncio.Future[Any]] = set()
"""Who reads on in answers that took longer than their callers waited: an answer without a reader is cancelled."""


async def _read(call: Call, handle: AsyncJobHandle, timeout_s: float) -> Any:
    chars = 0

    async def read() -> Any:
        nonlocal chars
        pieces = handle.stream()
        async for piece in pieces:
            chars += len(piece)
        return pieces.whole

    async def find() -> str:
        return handle.id

    reader = asyncio.ensure_future(read())
    try:
        done = asyncio.wait({reader}, timeout=timeout_s)
        await followed(call, done, find, lambda: chars)
    except asyncio.CancelledError:
        reader.cancel()
        raise
    if not reader.done():
        _lingering.add(reader)
        reader.add_done_callback(_finished)
        raise WaitTimeout(job_id=handle.id)
    try:
        return reader.result()
    except RedisUnreachable:
        text = f"Redis cannot be reached any more. Job {handle.id} was accepted before and goes on once Redis is back; "
        raise RedisUnreachable(f"{text}read it with get_job then.") from None


def _finished(reader: asyncio.Future[Any]) -> None:
    _lingering.discard(reader)
    if not reader.cancelled():
        reader.exception()  # whoever asks for the job is told


async def _named(call: Call, key: str) -> str:
    """Return the id of the job of an idempotency key; empty where there is none yet."""
    client = call.client
    name = client.door.keys.idempotency(call.visitor.tenant, key)
    found: str = await client.runner.run(command("GET", name, parse=word))
    return found.partition(" ")[0]


async def _waited(work: Coroutine[Any, Any, Any]) -> Any:
    """Say how an MCP client goes on after a wait that took too long."""
    try:
        return await work
    except WaitTimeout as late:
        known = f"Job {late.job_id}" if late.job_id else "The job"
        raise WaitTimeout(
            f"{known} did not end within the time waited (timeout_s); it goes on and nothing is lost. Read it with "
            f"get_job{f' (job_id {late.job_id})' if late.job_id else ''}, where wait_s waits, or end it with "
            "cancel_job.",
            job_id=late.job_id,
        ) from None


TOOLS = (
    Tool(
        "query",
        "Ask a model",
        "Ask a language model on Groq and wait for its answer. A router picks tier and model from the prompt unless "
        "you name one; rate limits are waited for and failing models are replaced. For long work use submit_job.",
        Query,
        query,
        ASKS,
        AnswerGiven,
    ),
    Tool(
        "analyze",
        "Analyze",
        "Ask for a thorough analysis (by default the tier for strategic analysis) and wait for it.",
        Query,
        analyze,
        ASKS,
        AnswerGiven,
    ),
    Tool(
        "generate_code",
        "Generate code",
        "Have code written and wait for it; `code` holds it without a Markdown fence. Nothing is run.",
        GenerateCode,
        generate_code,
        ASKS,
        CodeGiven,
    ),
    Tool(
        "research",
        "Research on the web",
        "Ask a model that searches the web by itself, and wait; `sources` lists the pages found.",
        Research,
        research,
        ASKS,
        SourcedGiven,
    ),
    Tool(
        "execute",
        "Compute by running code",
        "Have a model compute something by running code in Groq's sandbox, not on this machine, and wait.",
        Execute,
        execute,
        ASKS,
        SourcedGiven,
    ),
)
