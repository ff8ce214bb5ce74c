"""The protocol's server over a catalog: what a client may call, and how each failure is told."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import mcp_types as types
import structlog
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from vessel import __version__
from vessel.errors import JobFailed, JobNotFound, VesselError, place_of
from vessel.mcp.catalog import Answer, Call, Visitor, text
from vessel.mcp.schemas import input_schema, output_schema, told
from vessel.mcp.tasks import TaskService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from mcp.server.context import ServerRequestContext

    from vessel.mcp.catalog import Catalog, Clients, Prompt, Resource, Tool

    Context = ServerRequestContext[Clients, Any]

log = structlog.get_logger(__name__)
ERROR_META = "vessel/error"
SERVER_FAULT = 500
MOST_PROPOSED = 100
STDIO = Visitor(local=True)
INSTRUCTIONS = (
    "Vessel runs language-model work on Groq behind a job queue: rate limits are waited for, failing models are "
    "replaced, cost is exact. Use query, analyze, generate_code, research and execute for answers within minutes; "
    "submit_job and submit_batch for long or large work, which runs on when you are gone: follow it with get_job and "
    "get_batch. route tells tier and cost beforehand; health tells why nothing moves."
)


class VesselServer(Server["Clients"]):
    """The SDK's server for one catalog."""

    def __init__(
        self,
        catalog: Catalog,
        clients: Callable[[], AbstractAsyncContextManager[Clients]],
        *,
        name: str = "vessel",
        title: str = "Vessel: Groq behind a job queue",
        instructions: str = INSTRUCTIONS,
    ) -> None:
        """Serve a catalog; `clients` is entered once for as long as the server runs."""

        @asynccontextmanager
        async def lifespan(_server: Server[Clients]) -> AsyncIterator[Clients]:
            async with clients() as opened:
                yield opened

        self.catalog = catalog
        self.listed = [described(tool, catalog) for tool in catalog.tools]
        self._schemas = {tool.name: tool.input_schema for tool in self.listed}
        super().__init__(
            name,
            version=__version__,
            title=title,
            instructions=instructions,
            lifespan=lifespan,
            get_tool_input_schema=self._schemas.get,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_completion=self._complete,
        )
        self._tasks = None if catalog.tasks is None else TaskService(self, catalog.tasks, call_of)

    # --- tools

    async def _list_tools(self, context: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        del context, params
        return types.ListToolsResult(tools=self.listed)

    async def _call_tool(self, context: Context, params: types.CallToolRequestParams) -> Any:
        tool, call = self.tool(params.name), await charged(context)
        if isinstance(call, Answer):
            return result_of(call)
        answer = await answer_of(tool, call, params.arguments or {})
        task = None if self._tasks is None else await self._tasks.instead(tool, call, answer, params)
        return result_of(answer) if task is None else task

    def tool(self, name: str) -> Tool:
        """Return a tool. Raises MCPError."""
        found = self.catalog.by_name.get(name)
        if found is None:
            known = ", ".join(self.catalog.by_name)
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {name[:64]}. There are: {known}.")
        return found

    # --- resources

    async def _list_resources(self, context: Context, params: Any) -> types.ListResourcesResult:
        del context, params
        return types.ListResourcesResult(
            resources=[
                types.Resource(uri=r.uri, name=r.name, title=r.title, description=r.description, mime_type=r.mime)
                for r in self.catalog.resources
                if not r.is_template
            ]
        )

    async def _list_templates(self, context: Context, params: Any) -> types.ListResourceTemplatesResult:
        del context, params
        return types.ListResourceTemplatesResult(
            resource_templates=[
                types.ResourceTemplate(
                    uri_template=r.uri, name=r.name, title=r.title, description=r.description, mime_type=r.mime
                )
                for r in self.catalog.resources
                if r.is_template
            ]
        )

    async def _read_resource(
        self, context: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        uri, call = str(params.uri), await charged(context)
        if isinstance(call, Answer):
            raise MCPError(types.INTERNAL_ERROR, call.blocks[0].text)  # type: ignore[union-attr]  # a refusal is a text
        for resource in self.catalog.resources:
            part = resource.match(uri)
            if part is not None:
                return types.ReadResourceResult(contents=[await _contents(resource, call, uri, part)])
        raise not_found(uri, "Unknown resource; resources/list and resources/templates/list tell what there is.")

    # --- prompts

    async def _list_prompts(self, context: Context, params: Any) -> types.ListPromptsResult:
        del context, params
        return types.ListPromptsResult(
            prompts=[
                types.Prompt(name=p.name, title=p.title, description=p.description, arguments=list(p.arguments))
                for p in self.catalog.prompts
            ]
        )

    async def _get_prompt(self, context: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        prompt, given = self._prompt(params.name), params.arguments or {}
        missing = [a.name for a in prompt.arguments if a.required and not given.get(a.name)]
        if missing:
            raise MCPError(types.INVALID_PARAMS, f"Prompt {prompt.name} needs {', '.join(missing)}.")
        return await prompt.render(call_of(context), given)

    def _prompt(self, name: str) -> Prompt:
        for prompt in self.catalog.prompts:
            if prompt.name == name:
                return prompt
        known = ", ".join(prompt.name for prompt in self.catalog.prompts)
        raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {name[:64]}. There are: {known}.")

    # --- completion

    async def _complete(self, context: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        found: Sequence[str] = ()
        argument, call = params.argument, call_of(context)
        if isinstance(params.ref, types.PromptReference):
            prompt = self._prompt(params.ref.name)
            if prompt.complete is not None:
                found = await prompt.complete(call, argument.name, argument.value)
        else:
            resource = next((r for r in self.catalog.resources if r.uri == str(params.ref.uri)), None)
            if resource is not None and resource.complete is not None:
                try:
                    found = await resource.complete(call, argument.value)
                except VesselError as error:
                    raise MCPError(types.INTERNAL_ERROR, error.message) from None
        shown = list(found[:MOST_PROPOSED])
        return types.CompleteResult(
            completion=types.Completion(values=shown, total=len(found), has_more=len(found) > len(shown))
        )


def described(tool: Tool, catalog: Catalog) -> types.Tool:
    """Describe a tool as clients list it."""
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=dict(tool.schema) if tool.schema is not None else input_schema(tool.takes, catalog.registry),
        output_schema=None if tool.gives is None else output_schema(tool.gives),
        annotations=tool.hints.model_copy(update={"title": tool.title}),
        execution=types.ToolExecution(task_support="optional") if tool.starts_task and catalog.tasks else None,
    )


def call_of(context: Context) -> Call:
    """Find who calls: the HTTP face has left it in the request's scope; a stdio server has its user."""
    request = context.request
    visitor: Visitor = STDIO if request is None else request.scope["vessel.visitor"]
    return Call(context, visitor, context.lifespan_context)


async def charged(context: Context) -> Call | Answer:
    """Count a call against its key's quota; the answer says when to come back."""
    call = call_of(context)
    try:
        if call.visitor.charge is not None:
            await call.visitor.charge()
    except VesselError as error:
        return refused(error)
    return call


async def answer_of(tool: Tool, call: Call, given: dict[str, Any]) -> Answer:
    """Run a tool. Whatever goes wrong is an answer that a model can act on, never a fault of the protocol."""
    try:
        asked = tool.takes.model_validate(given)
    except ValidationError as error:
        return Answer(content=[text(f"The arguments of {tool.name} are not valid; nothing was done.\n"
                                    f"{told(error, tool.takes)}")], is_error=True)  # fmt: skip
    try:
        return await tool.run(call, asked)
    except VesselError as error:
        return refused(error)
    except MCPError:
        raise
    except Exception as error:  # noqa: BLE001  no tool may end a connection
        place = place_of(error)
        log.error("mcp.bug", tool=tool.name, error=type(error).__name__, at=place)  # noqa: TRY400  its text may hold a prompt
        words = f"Vessel met something it was not made for ({type(error).__name__} at {place}). Jobs go on."
        return Answer(content=[text(words)], is_error=True)


def refused(error: VesselError) -> Answer:
    """Tell an error: what happened, what was done, and the way out."""
    words = error.message
    if error.http_status >= SERVER_FAULT and error.exit_code == 2:  # noqa: PLR2004  settings tell of the inside
        words = "Vessel's settings hold faults; whoever runs it finds them by `vessel doctor`."
    about: dict[str, Any] = {"code": error.code, "param": error.param}
    if isinstance(error, JobFailed):
        about |= {"code": error.reason, "job_id": error.job_id, "attempts": len(error.attempts)}
        words += f"\n{len(error.attempts)} attempts were made; get_job with job_id {error.job_id} tells each of them."
    elif (job_id := getattr(error, "job_id", None)) is not None:
        about["job_id"] = job_id
    return Answer(None, [text(words)], is_error=True, meta={ERROR_META: about})


def result_of(answer: Answer) -> types.CallToolResult:
    """Write an answer as the protocol does; an error has no document, as it would not be of the tool's schema."""
    document = None if answer.document is None or answer.is_error else dict(answer.document)
    return types.CallToolResult(
        content=answer.blocks,
        structured_content=document,
        is_error=answer.is_error,
        _meta=None if answer.meta is None else dict(answer.meta),
    )


def not_found(uri: str, why: str) -> MCPError:
    """Say that there is no such resource (SEP-2164: invalid params, with the address)."""
    return MCPError(types.INVALID_PARAMS, f"Resource not found: {uri[:200]}. {why}", {"uri": uri[:2000]})


async def _contents(resource: Resource, call: Call, uri: str, part: str) -> Any:
    try:
        found = await resource.read(call, part)
    except JobNotFound as error:
        raise not_found(uri, error.message) from None
    except VesselError as error:
        raise MCPError(types.INTERNAL_ERROR, error.message) from None
    if isinstance(found, bytes):
        import base64  # noqa: PLC0415  only resources of other servers are bytes

        return types.BlobResourceContents(uri=uri, mime_type=resource.mime, blob=base64.b64encode(found).decode())
    return types.TextResourceContents(uri=uri, mime_type=resource.mime, text=found)
