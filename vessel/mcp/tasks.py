"""Tasks: a job or batch of ours as the protocol's handle for long work, found again from any connection.

Two shapes are spoken: the extension `io.modelcontextprotocol/tasks` of 2026-07-28 (SEP-2663: the server decides, the
result comes with `tasks/get`), and the experimental tasks of 2025-11-25 (the client asks by `task`, `tasks/result`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import Field

from vessel.errors import JobNotFound, VesselError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

    from vessel.mcp.catalog import Answer, Call, Task, Tasks, Tool
    from vessel.mcp.server import VesselServer

    Context = ServerRequestContext[Any, Any]

T = TypeVar("T")
EXTENSION = "io.modelcontextprotocol/tasks"
RELATED = "io.modelcontextprotocol/related-task"
TASKS_OF_2025 = "2025-11-25"
POLL_MS = 1000
ID_NAMES = ("job_id", "batch_id", "task_id")


class TaskParams(types.RequestParams):
    """Names a task."""

    task_id: str


class TaskUpdate(TaskParams):
    """Input for a task; ours never ask for any."""

    input_responses: dict[str, Any] = Field(default_factory=dict)


class TaskService:
    """Serves the tasks of one server."""

    def __init__(self, server: VesselServer, tasks: Tasks, call_of: Callable[[Context], Call]) -> None:
        """Bind the methods, and say that there are tasks."""
        self._server, self._tasks, self._call_of = server, tasks, call_of
        server.extensions[EXTENSION] = {}
        server.add_request_handler("tasks/get", TaskParams, self._get)
        server.add_request_handler("tasks/update", TaskUpdate, self._update)
        server.add_request_handler("tasks/cancel", TaskParams, self._cancel)
        server.add_request_handler("tasks/result", TaskParams, self._result)
        server.add_request_handler("tasks/list", types.PaginatedRequestParams, self._list)
        server.middleware.append(cast("Any", self._of_2025))

    async def instead(
        self, tool: Tool, call: Call, answer: Answer, params: types.CallToolRequestParams
    ) -> dict[str, Any] | None:
        """Return a handle in place of a result that only names what will come, to those who know tasks."""
        context = call.context
        if not tool.starts_task or answer.is_error or not _knows(context, params):
            return None
        document = answer.document or {}
        task = await self._tasks.get(call, next(str(document[name]) for name in ID_NAMES if name in document))
        if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return {"resultType": "task", **_shape(task)}
        return {"task": _shape_2025(task)}

    async def _get(self, context: Context, params: TaskParams) -> dict[str, Any]:
        task = await self._found(context, params.task_id)
        if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return _shape_2025(task)
        shape = _shape(task)
        if task.state == "completed" and task.answer is not None:
            result = _result(task.answer)
            shape["result"] = {"resultType": "complete", **result}
        if task.state == "failed":
            shape["error"] = {"code": types.INTERNAL_ERROR, "message": task.error}
        return shape

    async def _update(self, context: Context, params: TaskUpdate) -> dict[str, Any]:
        _modern(context)
        await self._found(context, params.task_id)
        return {}

    async def _cancel(self, context: Context, params: TaskParams) -> dict[str, Any]:
        task = await self._found(context, params.task_id)
        cancelled = await self._guarded(self._tasks.cancel(self._call(context), task.id))
        if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return {}
        if not cancelled:
            raise MCPError(types.INVALID_PARAMS, f"Task {task.id} is {task.state} already and cannot be cancelled.")
        return _shape_2025(await self._found(context, params.task_id))

    async def _result(self, context: Context, params: TaskParams) -> dict[str, Any]:
        _legacy(context, "tasks/result")
        await self._found(context, params.task_id)
        task = await self._guarded(self._tasks.wait(self._call(context), params.task_id))
        if task.answer is None:
            raise MCPError(types.INTERNAL_ERROR, f"Task {task.id} is {task.state}: {task.message}")
        result = _result(task.answer)
        return result | {"_meta": {**(result.get("_meta") or {}), RELATED: {"taskId": task.id}}}

    async def _list(self, context: Context, _params: types.PaginatedRequestParams) -> dict[str, Any]:
        _legacy(context, "tasks/list")
        found = await self._guarded(self._tasks.page(self._call(context)))
        return {"tasks": [_shape_2025(task) for task in found]}

    async def _found(self, context: Context, task_id: str) -> Task:
        """Read a task of the caller's. Raises MCPError for unknown and foreign ones alike."""
        _check_header(context, task_id)
        return await self._guarded(self._tasks.get(self._call(context), task_id))

    def _call(self, context: Context) -> Call:
        if context.protocol_version in MODERN_PROTOCOL_VERSIONS and not _declares(context):
            needed: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
            raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, f"Declare the extension {EXTENSION}.", needed)
        return self._call_of(context)

    async def _guarded(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except JobNotFound:
            text = "There is no such task, or it ended longer ago than results are kept."
            raise MCPError(types.INVALID_PARAMS, text) from None
        except VesselError as error:
            raise MCPError(types.INTERNAL_ERROR, error.message) from None

    async def _of_2025(self, context: Context, call_next: CallNext) -> HandlerResult:
        """Let through what the SDK's surface of 2025-11-25 leaves out: the capability, and handles as results."""
        version = context.protocol_version
        if context.method == "tools/call" and version == TASKS_OF_2025 and (context.params or {}).get("task"):
            params = types.CallToolRequestParams.model_validate(context.params, by_name=False)
            found = await self._server._call_tool(context, params)  # noqa: SLF001  one server in two modules
            return (
                found.model_dump(by_alias=True, mode="json", exclude_none=True)
                if not isinstance(found, dict)
                else found
            )
        answer = await call_next(context)
        if context.method == "initialize" and isinstance(answer, dict) and answer["protocolVersion"] == TASKS_OF_2025:
            capabilities = {**answer["capabilities"]}
            capabilities["tasks"] = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
            return {**answer, "capabilities": capabilities}
        return answer


def _declares(context: Context) -> bool:
    capabilities = context.session.client_capabilities
    return capabilities is not None and EXTENSION in (capabilities.extensions or {})


def _knows(context: Context, params: types.CallToolRequestParams) -> bool:
    if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return _declares(context)
    return context.protocol_version == TASKS_OF_2025 and params.task is not None


def _modern(context: Context) -> None:
    if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(types.METHOD_NOT_FOUND, "Method not found", context.method)


def _check_header(context: Context, task_id: str) -> None:
    """Make sure that the routing header over HTTP names the same task (SEP-2663); the SDK knows those of its own."""
    request = context.request
    if context.protocol_version in MODERN_PROTOCOL_VERSIONS and request is not None:
        named = [value.strip() for value in request.headers.getlist("mcp-name")]
        if named != [task_id]:
            raise MCPError(types.HEADER_MISMATCH, "The Mcp-Name header must be there once, and name the task.")


def _legacy(context: Context, method: str) -> None:
    if context.protocol_version != TASKS_OF_2025:
        raise MCPError(types.METHOD_NOT_FOUND, "Method not found", method)


def _result(answer: Answer) -> dict[str, Any]:
    from vessel.mcp.server import result_of  # noqa: PLC0415  the server imports this module

    return result_of(answer).model_dump(by_alias=True, mode="json", exclude_none=True)


def _shape(task: Task) -> dict[str, Any]:
    return {
        "taskId": task.id,
        "status": task.state,
        "statusMessage": task.message,
        "createdAt": task.created_at,
        "lastUpdatedAt": task.updated_at,
        "ttlMs": task.ttl_ms,
        "pollIntervalMs": POLL_MS,
    }


def _shape_2025(task: Task) -> dict[str, Any]:
    failed = task.state == "completed" and task.answer is not None and task.answer.is_error
    return {
        "taskId": task.id,
        "status": "failed" if failed else task.state,
        "statusMessage": task.message,
        "createdAt": task.created_at,
        "lastUpdatedAt": task.updated_at,
        "ttl": task.ttl_ms,
        "pollInterval": POLL_MS,
    }
