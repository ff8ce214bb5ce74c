"""The conformance suite's fixed tools, resources and prompts on Vessel's own server machinery, served as `vessel mcp`.

Run as a module: `python -m tests.mcp.profile PORT`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import sys
import warnings
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import mcp_types as types
from mcp_types import ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field

from vessel.api.mcp import create_mcp_app
from vessel.api.serve import serve
from vessel.errors import JobNotFound, WrongState
from vessel.mcp.catalog import Answer, Call, Catalog, Prompt, Resource, Task, Tool, text
from vessel.mcp.server import VesselServer
from vessel.mcp.tasks import EXTENSION
from vessel.mcp.tenants import open_clients
from vessel.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from vessel.mcp.surveying import Sums

PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c020000000b4944415478da6364f80f00010501012718e3660000000049454e44ae426082"
    )
).decode()
SOUND = base64.b64encode(b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0@\x1f\0\0@\x1f\0\0\1\0\x08\0data\0\0\0\0").decode()
HINTS = ToolAnnotations(read_only_hint=True)
TTL_MS = 600_000
SCHEMA_2020 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


class Anything(BaseModel):
    """Any arguments."""

    model_config = ConfigDict(extra="allow")


class Greet(BaseModel):
    """A name."""

    name: str = "world"


class Slow(BaseModel):
    """How long to take."""

    seconds: float = 0


class Headed(BaseModel):
    """An argument that travels in a header as well."""

    region: str = Field(json_schema_extra={"x-mcp-header": "Region"})


class Prompted(BaseModel):
    """What to ask."""

    prompt: str = ""
    message: str = ""


class Book:
    """The tasks of this process."""

    def __init__(self) -> None:
        """Begin empty."""
        self._running: dict[str, asyncio.Task[Answer]] = {}
        self._at: dict[str, str] = {}

    def start(self, work: Any) -> str:
        """Start work and name it."""
        task_id = secrets.token_hex(16)
        self._running[task_id], self._at[task_id] = asyncio.ensure_future(work), _now()
        return task_id

    async def get(self, _call: Call, task_id: str) -> Task:
        """Look at one."""
        work, at = self._running.get(task_id), self._at.get(task_id, "")
        if work is None:
            raise JobNotFound
        if not work.done():
            return Task(task_id, "working", "it runs", at, at, TTL_MS)
        if work.cancelled():
            return Task(task_id, "cancelled", "it was cancelled", at, _now(), TTL_MS)
        if (error := work.exception()) is not None:
            return Task(task_id, "failed", "it failed", at, _now(), TTL_MS, error=str(error))
        return Task(task_id, "completed", "it ended", at, _now(), TTL_MS, work.result())

    async def wait(self, call: Call, task_id: str) -> Task:
        """Wait for one."""
        await asyncio.wait({self._running[task_id]})
        return await self.get(call, task_id)

    async def cancel(self, _call: Call, task_id: str) -> bool:
        """Cancel one."""
        return self._running[task_id].cancel()

    async def page(self, call: Call) -> Sequence[Task]:
        """List all."""
        return [await self.get(call, task_id) for task_id in self._running]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


BOOK = Book()


def _said(*blocks: Any) -> Callable[[Call, Any], Awaitable[Answer]]:
    async def run(_call: Call, _asked: Any) -> Answer:
        return Answer(content=list(blocks))

    return run


def _task(work: Callable[[Any], Awaitable[Answer]]) -> Callable[[Call, Any], Awaitable[Answer]]:
    """Run work as a task for those who know tasks, else while the caller waits."""

    async def run(call: Call, asked: Any) -> Answer:
        capabilities = call.context.session.client_capabilities
        knows = capabilities is not None and EXTENSION in (capabilities.extensions or {})
        return Answer({"task_id": BOOK.start(work(asked))}) if knows else await work(asked)

    return run


async def _greet(_call: Call, asked: Greet) -> Answer:
    return Answer(content=[text(f"Hello, {asked.name}!")])


async def _slow(asked: Slow) -> Answer:
    await asyncio.sleep(asked.seconds)
    return Answer(content=[text(f"Computed for {asked.seconds:g} s")])


async def _failing(_asked: Any) -> Answer:
    await asyncio.sleep(1)
    return Answer(content=[text("The job failed")], is_error=True)


async def _broken(_asked: Any) -> Answer:
    await asyncio.sleep(0.1)
    raise RuntimeError("a fault of the protocol's")


async def _refuses(_call: Call, _asked: Any) -> Answer:
    raise WrongState("This tool intentionally returns an error for testing")


async def _progresses(call: Call, _asked: Any) -> Answer:
    for done in (0, 50, 100):
        await call.tell(done, 100, f"{done} of 100")
        await asyncio.sleep(0.05)
    return Answer(content=[text("done")])


async def _logs(call: Call, _asked: Any) -> Answer:
    for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await call.context.session.send_log_message("info", words, related_request_id=call.context.request_id)
        await asyncio.sleep(0.05)
    return Answer(content=[text("logged")])


async def _samples(call: Call, asked: Prompted) -> Answer:
    message = types.SamplingMessage(role="user", content=text(asked.prompt))
    found = await call.context.session.create_message(
        [message], max_tokens=100, related_request_id=call.context.request_id
    )
    return Answer(content=[text(f"LLM response: {getattr(found.content, 'text', found.content)}")])


def _elicits(schema: Mapping[str, Any]) -> Callable[[Call, Any], Awaitable[Answer]]:
    async def run(call: Call, asked: Prompted) -> Answer:
        found = await call.context.session.elicit_form(
            asked.message or "Please answer", dict(schema), related_request_id=call.context.request_id
        )
        return Answer(content=[text(f"User response: action={found.action}, content={json.dumps(found.content)}")])

    return run


async def _needs_sampling(call: Call, _asked: Any) -> Answer:
    capabilities = call.context.session.client_capabilities
    if capabilities is None or capabilities.sampling is None:
        from mcp.shared.exceptions import MCPError  # noqa: PLC0415  only this one tool

        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY, "Needs sampling", {"requiredCapabilities": {"sampling": {}}}
        )
    return Answer(content=[text("there")])


def _tool(name: str, run: Any, takes: type[BaseModel] = Anything, **more: Any) -> Tool:
    return Tool(name, name, f"The suite's {name}.", takes, run, HINTS, **more)


def _form(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": []}


def _choice(*names: str, titled: bool = False) -> dict[str, Any]:
    if titled:
        return {"type": "string", "oneOf": [{"const": name, "title": name.title()} for name in names]}
    return {"type": "string", "enum": list(names)}


PLAIN = text("This is a simple text response for testing.")
IMAGE = types.ImageContent(type="image", data=PIXEL, mime_type="image/png")
EMBEDDED = types.EmbeddedResource(
    type="resource",
    resource=types.TextResourceContents(
        uri="test://embedded-resource", mime_type="text/plain", text="This is an embedded resource content."
    ),
)
MIXED = types.EmbeddedResource(
    type="resource",
    resource=types.TextResourceContents(
        uri="test://mixed-content-resource", mime_type="application/json", text='{"test":"data","value":123}'
    ),
)
DEFAULTS = _form(
    name={"type": "string", "default": "John Doe"},
    age={"type": "integer", "default": 30},
    score={"type": "number", "default": 95.5},
    status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    verified={"type": "boolean", "default": True},
)
ENUMS = _form(
    untitledSingle=_choice("option1", "option2", "option3"),
    titledSingle=_choice("value1", "value2", "value3", titled=True),
    legacyEnum={"type": "string", "enum": ["opt1", "opt2", "opt3"], "enumNames": ["One", "Two", "Three"]},
    untitledMulti={"type": "array", "items": _choice("option1", "option2", "option3")},
    titledMulti={
        "type": "array",
        "items": {"anyOf": [{"const": name, "title": name.title()} for name in ("value1", "value2", "value3")]},
    },
)
TOOLS = (
    _tool("test_simple_text", _said(PLAIN)),
    _tool("test_image_content", _said(IMAGE)),
    _tool("test_audio_content", _said(types.AudioContent(type="audio", data=SOUND, mime_type="audio/wav"))),
    _tool("test_embedded_resource", _said(EMBEDDED)),
    _tool("test_multiple_content_types", _said(text("Multiple content types test:"), IMAGE, MIXED)),
    _tool("test_error_handling", _refuses),
    _tool("test_tool_with_progress", _progresses),
    _tool("test_tool_with_logging", _logs),
    _tool("test_logging_tool", _logs),
    _tool("test_streaming_elicitation", _progresses),
    _tool("test_sampling", _samples, Prompted),
    _tool("test_elicitation", _elicits(_form(username={"type": "string"}, email={"type": "string"})), Prompted),
    _tool("test_elicitation_sep1034_defaults", _elicits(DEFAULTS), Prompted),
    _tool("test_elicitation_sep1330_enums", _elicits(ENUMS), Prompted),
    _tool("test_missing_capability", _needs_sampling),
    _tool("test_custom_header", _said(PLAIN), Headed),
    _tool("json_schema_2020_12_tool", _said(PLAIN), schema=SCHEMA_2020),
    _tool("greet", _greet, Greet),
    _tool("slow_compute", _task(_slow), Slow, starts_task=True),
    _tool("confirm_delete", _task(_slow), Slow, starts_task=True),
    _tool("failing_job", _task(_failing), starts_task=True),
    _tool("protocol_error_job", _task(_broken), starts_task=True),
)


async def _text(_call: Call, _part: str) -> str:
    return "This is the content of the static text resource."


async def _binary(_call: Call, _part: str) -> bytes:
    return base64.b64decode(PIXEL)


async def _data(_call: Call, part: str) -> str:
    return json.dumps({"id": part, "templateTest": True, "data": f"Data for ID: {part}"})


RESOURCES = (
    Resource("test://static-text", "text", "Text", "A text.", _text, "text/plain"),
    Resource("test://static-binary", "binary", "Binary", "A picture.", _binary, "image/png"),
    Resource("test://watched-resource", "watched", "Watched", "One to subscribe to.", _text, "text/plain"),
    Resource("test://template/{id}/data", "data", "Data", "Data of an id.", _data),
)


def _prompt(name: str, render: Callable[[Mapping[str, str]], Sequence[Any]], *arguments: str) -> Prompt:
    async def rendered(_call: Call, given: Mapping[str, str]) -> types.GetPromptResult:
        return types.GetPromptResult(
            messages=[types.PromptMessage(role="user", content=block) for block in render(given)]
        )

    async def proposed(_call: Call, _argument: str, begun: str) -> Sequence[str]:
        return [word for word in ("paris", "park", "party") if word.startswith(begun)]

    named = tuple(types.PromptArgument(name=a, description=a, required=True) for a in arguments)
    return Prompt(name, name, f"The suite's {name}.", named, rendered, proposed)


def _embedded(given: Mapping[str, str]) -> Sequence[Any]:
    held = types.TextResourceContents(
        uri=given["resourceUri"], mime_type="text/plain", text="Embedded resource content for testing."
    )
    return [types.EmbeddedResource(type="resource", resource=held), text("Please process the embedded resource above.")]


PROMPTS = (
    _prompt("test_simple_prompt", lambda _: [text("This is a simple prompt for testing.")]),
    _prompt(
        "test_prompt_with_arguments",
        lambda given: [text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'")],
        "arg1",
        "arg2",
    ),
    _prompt("test_prompt_with_embedded_resource", _embedded, "resourceUri"),
    _prompt("test_prompt_with_image", lambda _: [IMAGE, text("Please analyze the image above.")]),
)


async def _empty(_context: Any, _params: Any) -> types.EmptyResult:
    return types.EmptyResult()


def make_server(settings: Settings, _sums: Sums) -> VesselServer:
    """Make the profile's server; what Vessel does not offer (logging, subscriptions) is bound here alone."""
    catalog = Catalog(TOOLS, RESOURCES, PROMPTS, BOOK)
    server = VesselServer(catalog, partial(open_clients, settings), name="vessel-conformance")
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, _empty)
    server.add_request_handler("resources/subscribe", types.SubscribeRequestParams, _empty)
    server.add_request_handler("resources/unsubscribe", types.UnsubscribeRequestParams, _empty)
    return server


def main() -> None:
    """Serve on a port, which is told once it listens."""
    warnings.simplefilter("ignore")
    settings = load_settings(api_port=int(sys.argv[1]))
    serve(settings, partial(print, flush=True), partial(create_mcp_app, make=make_server))


if __name__ == "__main__":
    main()
