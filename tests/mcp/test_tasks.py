"""Tasks: work that is started over one connection is found again over another, in both shapes of the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import httpx
import pytest
from mcp.client.extension import ClientExtension, ResultClaim
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, Request, RequestParams, Result

from tests.mcp.standing import HEADERS, INITIALIZE
from tests.waiting import wait_until_async
from vessel.mcp.tasks import EXTENSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.mcp.standing import Standing

pytestmark = pytest.mark.anyio
BATCH = {"requests": [{"prompt": f"number {n}"} for n in range(4)]}


class Handle(Result):
    """What a client that knows tasks gets in place of a result."""

    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    ttl_ms: int | None = None
    poll_interval_ms: int | None = None


class KnowsTasks(ClientExtension):
    """Takes handles, and looks after them until they end."""

    identifier = EXTENSION

    def claims(self) -> Sequence[ResultClaim[Any]]:
        """Take them."""

        async def settled(handle: Handle, context: Any) -> CallToolResult:
            async def ended() -> Told | None:
                told = await asked(context, "tasks/get", handle.task_id)
                return told if told.status != "working" else None

            told = await wait_until_async(ended)
            assert told is not None
            return CallToolResult.model_validate(told.result)

        return [ResultClaim(result_type="task", model=Handle, resolve=settled)]


class Named(RequestParams):
    """Names a task."""

    task_id: str


class TaskRequest(Request[Named, str]):
    """A request about a task; its id goes into the routing header as well."""

    name_param = "taskId"


class Told(Result):
    """What is told of a task."""

    task_id: str = ""
    status: str = ""
    status_message: str = ""
    result: dict[str, Any] | None = None


async def asked(client: Any, method: str, task_id: str) -> Told:
    """Ask about a task."""
    told: Told = await client.session.send_request(TaskRequest(method=method, params=Named(task_id=task_id)), Told)
    return told


async def begun(client: Any, name: str, arguments: dict[str, Any]) -> Handle:
    """Start work and take its handle."""
    handle: Handle = await client.session.call_tool(name, arguments, allow_claimed=True)
    return handle


async def test_a_client_that_knows_tasks_gets_ended_work(standing: Standing) -> None:
    """The SDK's client looks after the task, and checks its end against the schema of the tool that began it."""
    async with standing.client(standing.mcp_url, extensions=[KnowsTasks()]) as client:
        job: Any = (await client.call_tool("submit_job", {"prompt": "later"})).structured_content
        assert (job["state"], bool(job["text"])) == ("succeeded", True)
        batch: Any = (await client.call_tool("submit_batch", BATCH)).structured_content
        assert (batch["status"], len(batch["lines"])) == ("completed", 4)


async def test_a_batch_is_started_and_come_back_to(standing: Standing) -> None:
    """Its handle is its id; how far it is comes at once, and its results when it has ended, over another connection."""
    with standing.held():
        async with standing.client(standing.mcp_url, extensions=[KnowsTasks()]) as client:
            task_id = (await begun(client, "submit_batch", BATCH)).task_id
            assert task_id.startswith("batch_")
            told = await asked(client, "tasks/get", task_id)
            assert (told.status, told.result) == ("working", None)
            assert "0 of 4 lines ended" in told.status_message
    async with standing.client(standing.mcp_url, extensions=[KnowsTasks()]) as client:

        async def ended() -> bool:
            return (await asked(client, "tasks/get", task_id)).status == "completed"

        await wait_until_async(ended)
        result = (await asked(client, "tasks/get", task_id)).result
        assert result is not None
        assert len(result["structuredContent"]["lines"]) == 4
        with pytest.raises(MCPError, match="no such task"):
            await asked(client, "tasks/get", "batch_" + "0" * 32)


async def test_a_task_is_cancelled(standing: Standing) -> None:
    """It is its job that ends; to cancel it again changes nothing."""
    with standing.held():
        async with standing.client(standing.mcp_url, extensions=[KnowsTasks()]) as client:
            task_id = (await begun(client, "submit_job", {"prompt": "wait"})).task_id
            (job,) = standing.open_jobs()
            assert job.id == task_id
            for _ in range(2):
                await asked(client, "tasks/cancel", task_id)
            assert standing.open_jobs() == []
            assert (await asked(client, "tasks/get", task_id)).status == "cancelled"


async def test_who_knows_no_tasks_gets_ids(standing: Standing) -> None:
    """And is told what to declare when asking for a task."""
    async with standing.client(standing.mcp_url) as client:
        made = await client.call_tool("submit_job", {"prompt": "later"})
        assert made.structured_content is not None
        job_id = made.structured_content["job_id"]
        with pytest.raises(MCPError) as refused:
            await asked(client, "tasks/get", job_id)
        assert refused.value.data == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        await client.call_tool("get_job", {"job_id": job_id, "wait_s": 20})


async def test_tasks_of_the_protocol_before(standing: Standing) -> None:
    """2025-11-25: the client asks for a task, and takes its result by a request of its own, which waits."""
    async with httpx.AsyncClient(timeout=30) as http:

        async def ask(method: str, params: dict[str, Any], **more: str) -> Any:
            body = {"jsonrpc": "2.0", "id": 2, "method": method, "params": params}
            answer = await http.post(standing.mcp_url, json=body, headers=HEADERS | more)
            data = next(line[5:] for line in answer.text.splitlines() if line.startswith("data:"))
            return httpx.Response(200, text=data).json()

        opened = await http.post(standing.mcp_url, json=INITIALIZE, headers=HEADERS)
        assert '"tasks":{"list":{}' in opened.text
        known = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
        await http.post(
            standing.mcp_url, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=HEADERS | known
        )
        call = {"name": "submit_job", "arguments": {"prompt": "later"}, "task": {"ttl": 60000}}
        task = (await ask("tools/call", call, **known))["result"]["task"]
        result = (await ask("tasks/result", {"taskId": task["taskId"]}, **known))["result"]
        assert result["structuredContent"]["state"] == "succeeded"
        assert result["_meta"]["io.modelcontextprotocol/related-task"] == {"taskId": task["taskId"]}
        assert (await ask("tasks/get", {"taskId": task["taskId"]}, **known))["result"]["status"] == "completed"
        listed = (await ask("tasks/list", {}, **known))["result"]["tasks"]
        assert task["taskId"] in {one["taskId"] for one in listed}
        assert (await ask("tasks/cancel", {"taskId": task["taskId"]}, **known))["error"]["code"] == -32602
