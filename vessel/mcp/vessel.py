"""The catalog that Vessel serves."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from vessel.mcp import asking, prompting, reading, surveying, working
from vessel.mcp.catalog import Catalog
from vessel.mcp.server import VesselServer
from vessel.mcp.tenants import open_clients
from vessel.mcp.work import Work
from vessel.registry import load_registry

if TYPE_CHECKING:
    from vessel.mcp.surveying import Sums
    from vessel.settings import Settings

ORDER = ("query", "analyze", "generate_code", "research", "execute", "submit_job", "get_job", "cancel_job",
         "submit_batch", "get_batch", "list_models", "route", "usage", "health")  # fmt: skip


def make_server(settings: Settings, sums: Sums) -> VesselServer:
    """Make the server; `sums` reads the ledger. Raises SettingsError for a registry with faults."""
    found = {tool.name: tool for tool in (*asking.TOOLS, *working.TOOLS, *surveying.TOOLS, surveying.usage_tool(sums))}
    catalog = Catalog(
        tools=[found[name] for name in ORDER],
        resources=reading.RESOURCES,
        prompts=prompting.PROMPTS,
        tasks=Work(),
        registry=load_registry(settings.registry),
    )
    return VesselServer(catalog, partial(open_clients, settings))
