"""Every tool, resource and prompt by the SDK's own client, over standard input and output and over HTTP."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, ResourceTemplateReference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.mcp.standing import Standing

pytestmark = pytest.mark.anyio
TOOLS = ["query", "analyze", "generate_code", "research", "execute", "submit_job", "get_job", "cancel_job",
         "submit_batch", "get_batch", "list_models", "route", "usage", "health"]  # fmt: skip
READ_ONLY = {"get_job", "get_batch", "list_models", "route", "usage", "health"}


@asynccontextmanager
async def connected(standing: Standing, transport: str) -> AsyncIterator[Client]:
    """Connect over a transport, in the protocol of today or that before."""
    where, _, era = transport.partition("-")
    mode = era or "auto"
    if where == "stdio":
        async with Client(standing.child(), mode=mode) as client:
            yield client
    else:
        async with standing.client(standing.mcp_url, mode=mode) as client:
            yield client


async def called(client: Client, name: str, **arguments: Any) -> Any:
    """Call a tool that must do it, and give its document."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    assert result.content
    return result.structured_content


@pytest.mark.parametrize("transport", ["stdio", "http", "http-legacy"])
async def test_everything_is_there_and_answers(standing: Standing, transport: str) -> None:
    """The SDK checks every document against its schema; jobs and batches can be followed to their ends."""
    async with connected(standing, transport) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(tools) == TOOLS
        for tool in tools.values():
            assert tool.description
            assert tool.output_schema
            assert tool.annotations is not None
            assert tool.annotations.read_only_hint is (tool.name in READ_ONLY)
        asked: dict[str, dict[str, Any]] = {
            "query": {"prompt": "a word"},
            "analyze": {"prompt": "a market"},
            "generate_code": {"prompt": "a sum", "language": "python"},
            "research": {"query": "the news", "max_results": 2},
            "execute": {"task": "a sum", "code": "print(1)"},
        }
        for name, arguments in asked.items():
            answer = await called(client, name, **arguments)
            assert answer["text"]
            assert answer["job_id"].startswith("job_")
        job = await called(client, "submit_job", prompt="later")
        done = await called(client, "get_job", job_id=job["job_id"], wait_s=20)
        assert (done["state"], done["id"]) == ("succeeded", job["job_id"])
        assert (await called(client, "cancel_job", job_id=job["job_id"]))["cancelled"] is False
        batch = await called(client, "submit_batch", requests=[{"prompt": f"number {n}"} for n in range(5)])
        seen = await called(client, "get_batch", batch_id=batch["batch_id"], wait_s=20, part="results", limit=3)
        assert (seen["status"], seen["request_counts"]["completed"], len(seen["lines"])) == ("completed", 5, 3)
        rest = await called(client, "get_batch", batch_id=batch["batch_id"], part="results", cursor=seen["next_cursor"])
        assert sorted(line["custom_id"] for line in seen["lines"] + rest["lines"]) == [f"line-{n}" for n in range(1, 6)]
        assert rest["next_cursor"] is None
        assert {model["id"] for model in (await called(client, "list_models"))["models"]} >= {"openai/gpt-oss-20b"}
        assert (await called(client, "route", prompt="hi"))["chain"]
        assert (await called(client, "usage"))["total"]["calls"] >= 6
        assert (await called(client, "health"))["status"] == "healthy"
        await _read_and_prompt(client, job["job_id"])


async def _read_and_prompt(client: Client, job_id: str) -> None:
    uris = {str(resource.uri) for resource in (await client.list_resources()).resources}
    assert uris == {"vessel://models", "vessel://tiers", "vessel://limits"}
    (template,) = (await client.list_resource_templates()).resource_templates
    assert template.uri_template == "vessel://jobs/{id}"
    for uri in [*sorted(uris), f"vessel://jobs/{job_id}"]:
        (held,) = (await client.read_resource(uri)).contents
        assert json.loads(getattr(held, "text", ""))
    for missing in ("vessel://jobs/job_" + "0" * 32, "vessel://jobs/..", "vessel://nothing"):
        with pytest.raises(MCPError) as refused:
            await client.read_resource(missing)
        assert refused.value.code == -32602
        assert refused.value.data == {"uri": missing}
    ids = await client.complete(ResourceTemplateReference(uri=template.uri_template), {"name": "id", "value": "job_"})
    assert job_id in ids.completion.values
    assert {prompt.name for prompt in (await client.list_prompts()).prompts} == {"analyze", "code-review"}
    for name, given in {"analyze": {"subject": "a market"}, "code-review": {"code": "x = 1"}}.items():
        (message,) = (await client.get_prompt(name, given)).messages
        assert next(iter(given.values())) in getattr(message.content, "text", "")
    with pytest.raises(MCPError, match="needs subject"):
        await client.get_prompt("analyze", {})
    kinds = await client.complete(PromptReference(name="analyze"), {"name": "task_type", "value": "deep"})
    assert kinds.completion.values == ["deep_reasoning"]


async def test_fifty_calls_at_once_over_one_server(standing: Standing) -> None:
    """Each gets its own answer."""
    async with standing.client(standing.mcp_url) as client:
        prompts = [f"prompt number {n}" for n in range(50)]
        results = await asyncio.gather(*(client.call_tool("query", {"prompt": prompt}) for prompt in prompts))
    for prompt, result in zip(prompts, results, strict=True):
        assert result.structured_content is not None
        assert f'"{prompt}"' in result.structured_content["text"]
    assert standing.open_jobs() == []


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("query", {}, "prompt: Field required"),
    ("query", {"prompt": "x", "promt": "y"}, "promt: there is no such argument. There are: model, tier"),
    ("query", {"prompt": ["x"]}, "prompt: Input should be a valid string"),
    ("query", {"prompt": "x", "temperature": 3}, "temperature: Input should be less than or equal to 2"),
    ("query", {"prompt": "x", "model": "nobody/none"}, "There is no model or tier 'nobody/none'"),
    ("query", {"prompt": "x", "tier": "none"}, "tier"),
    ("query", {"prompt": "x", "max_cost_usd": 1e-9}, "max_cost_usd"),
    ("get_job", {"job_id": "7"}, "job_id: String should match pattern"),
    ("get_job", {"job_id": "job_" + "0" * 32}, "There is no such job"),
    ("cancel_job", {"job_id": "batch_" + "0" * 32}, "no such batch"),
    ("get_batch", {"batch_id": "batch_" + "0" * 32}, "no such batch"),
    ("submit_batch", {}, "give either requests or path"),
    ("submit_batch", {"path": "/etc/passwd"}, "only be named over stdio"),
    ("submit_batch", {"requests": [{"prompt": "x", "model": "nobody/none"}]}, "nobody/none"),
    ("usage", {"since": "yesterday"}, "since: it must be a span"),
]  # fmt: skip


async def test_what_cannot_be_done_is_told_with_a_way_out(standing: Standing) -> None:
    """Arguments, ids and models that are wrong are errors of the tool; only an unknown tool is one of the protocol."""
    async with standing.client(standing.mcp_url) as client:
        for name, arguments, words in BAD:
            result = await client.call_tool(name, arguments)
            assert result.is_error, (name, arguments)
            assert words in result.content[0].text, (name, arguments)  # type: ignore[union-attr]  # a text
        with pytest.raises(MCPError, match="There are: query"):
            await client.call_tool("querry", {})
    assert standing.open_jobs() == []


async def test_a_key_makes_one_job(standing: Standing) -> None:
    """The same key and request is the same job; another request under the key is refused."""
    async with standing.client(standing.mcp_url) as client:
        asked = {"prompt": "once", "idempotency_key": "only one"}
        first, again = [await called(client, "submit_job", **asked) for _ in range(2)]
        assert (first["job_id"], first["existing"], again["existing"]) == (again["job_id"], False, True)
        other = await client.call_tool("submit_job", asked | {"prompt": "twice"})
        assert other.is_error
        assert other.meta is not None
        assert other.meta["vessel/error"]["code"] == "idempotency_key_reused"
        await called(client, "get_job", job_id=first["job_id"], wait_s=20)


async def test_a_long_answer_is_read_in_parts(standing: Standing) -> None:
    """What is cut says where the rest is, and the parts make the whole."""
    async with standing.client(standing.mcp_url) as client:
        first = await client.call_tool("query", {"prompt": "tell me more", "max_chars": 100})
        assert first.structured_content is not None
        told = first.structured_content
        assert told["truncated"]
        assert f"get_job with job_id {told['job_id']} and offset 100" in first.content[0].text  # type: ignore[union-attr]  # a text
        whole, part = told["text"], told
        while len(whole) < told["text_length"]:
            part = await called(client, "get_job", job_id=told["job_id"], offset=len(whole), max_chars=100)
            whole += part["text"]
        assert len(whole) == told["text_length"]
        assert not part["truncated"]
