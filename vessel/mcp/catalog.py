"""What an MCP server offers, as declarations: tools, resources and prompts, and what surrounds a call of one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from mcp_types import TextContent

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from mcp.server.context import ServerRequestContext
    from mcp_types import ContentBlock, GetPromptResult, PromptArgument, ToolAnnotations
    from pydantic import BaseModel

    from vessel.client import AsyncGroqClient
    from vessel.registry import Registry

DEFAULT_TENANT = "default"
JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who calls: whose jobs they see, whether this machine's user started us, and when they have left."""

    tenant: str = DEFAULT_TENANT
    local: bool = False
    gone: asyncio.Event | None = None
    charge: Callable[[], Awaitable[None]] | None = None
    """Counts a call against the quota of a key. Raises QuotaReached."""


class Clients(Protocol):
    """Gives the client of each tenant."""

    def of(self, tenant: str) -> AsyncGroqClient:
        """Return a tenant's client."""


@dataclass(frozen=True, slots=True)
class Call:
    """What surrounds one request of a caller."""

    context: ServerRequestContext[Any, Any]
    visitor: Visitor
    clients: Clients

    @property
    def client(self) -> AsyncGroqClient:
        """The client of whoever calls."""
        return self.clients.of(self.visitor.tenant)

    @property
    def wants_progress(self) -> bool:
        """Whether the caller asked to be told how far the call is."""
        return bool(self.context.meta) and "progress_token" in self.context.meta  # type: ignore[operator]  # not None

    async def tell(self, progress: float, total: float | None, message: str) -> None:
        """Tell how far the call is; nothing happens where nobody asked."""
        await self.context.session.report_progress(progress, total, message)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool gives: a document for programs, and what a model reads, the document itself where nothing else is."""

    document: Mapping[str, Any] | None = None
    content: Sequence[ContentBlock] = ()
    is_error: bool = False
    meta: Mapping[str, Any] | None = None
    """Facts for programs that have no place in the document's schema."""

    @property
    def blocks(self) -> list[ContentBlock]:
        """What a model reads."""
        if self.content or self.document is None:
            return list(self.content)
        return [text(json.dumps(self.document, ensure_ascii=False, separators=(",", ":")))]


def text(words: str) -> TextContent:
    """Make a block of text."""
    return TextContent(type="text", text=words)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: what it takes and gives, and what does it. `starts_task`: its result names a job or batch to come."""

    name: str
    title: str
    description: str
    takes: type[BaseModel]
    run: Callable[[Call, Any], Awaitable[Answer]]
    hints: ToolAnnotations
    gives: type[BaseModel] | None = None
    starts_task: bool = False
    schema: Mapping[str, Any] | None = None
    """The input schema where it is not that of `takes`."""


@dataclass(frozen=True, slots=True)
class Resource:
    """Something to read; `uri` with a `{name}` is a template, whose value `read` gets and `complete` proposes."""

    uri: str
    name: str
    title: str
    description: str
    read: Callable[[Call, str], Awaitable[str | bytes]]
    mime: str = JSON_TYPE
    complete: Callable[[Call, str], Awaitable[Sequence[str]]] | None = None

    @property
    def is_template(self) -> bool:
        """Whether the address has a part that callers fill."""
        return "{" in self.uri

    def match(self, uri: str) -> str | None:
        """Return the filled part of an address (empty for a resource without one); None for another's address."""
        head, opened, rest = self.uri.partition("{")
        if not opened:
            return "" if uri == self.uri else None
        tail = rest.partition("}")[2]
        if not (uri.startswith(head) and uri.endswith(tail) and len(uri) > len(head) + len(tail)):
            return None
        found = uri[len(head) : len(uri) - len(tail)]
        return found if "/" not in found else None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that a user picks, with its arguments; `complete` proposes values of one."""

    name: str
    title: str
    description: str
    arguments: Sequence[PromptArgument]
    render: Callable[[Call, Mapping[str, str]], Awaitable[GetPromptResult]]
    complete: Callable[[Call, str, str], Awaitable[Sequence[str]]] | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """Long work that was started before: where it stands, when it changed, and its result once it has ended.

    `state`: working, completed, failed or cancelled. Times are ISO 8601.
    """

    id: str
    state: str
    message: str
    created_at: str
    updated_at: str
    ttl_ms: int | None = None
    answer: Answer | None = None
    error: str = ""
    """Why it is `failed`, which is a fault of the protocol's; work that failed is `completed` with an error answer."""

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state not in {"working", "input_required"}


class Tasks(Protocol):
    """Where started work is found again, by whoever may see it."""

    async def get(self, call: Call, task_id: str) -> Task:
        """Read one. Raises JobNotFound or its kin."""

    async def wait(self, call: Call, task_id: str) -> Task:
        """Wait for its end."""

    async def cancel(self, call: Call, task_id: str) -> bool:
        """Cancel it; False for one that had ended before."""

    async def page(self, call: Call) -> Sequence[Task]:
        """List the newest ones."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Everything that one server offers."""

    tools: Sequence[Tool] = ()
    resources: Sequence[Resource] = ()
    prompts: Sequence[Prompt] = ()
    tasks: Tasks | None = None
    registry: Registry | None = None
    by_name: dict[str, Tool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Index the tools."""
        self.by_name.update({tool.name: tool for tool in self.tools})
