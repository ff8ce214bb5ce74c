"""The configuration files in docs/mcp.md cannot lie: each is read as its program does, and what it names is used."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

if TYPE_CHECKING:
    from tests.mcp.standing import Standing

pytestmark = pytest.mark.anyio
PAGE = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(json|toml)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
KEYS = {"type", "command", "args", "env", "url", "httpUrl", "headers", "timeout", "tool_timeout_sec",
        "bearer_token_env_var"}  # fmt: skip
_started: set[str] = set()


def entry(kind: str, text: str) -> dict[str, Any]:
    """Read the one server of a file."""
    read: Any = json.loads if kind == "json" else tomllib.loads
    (servers,) = read(text).values()
    (found,) = servers.values()
    assert set(found) <= KEYS
    named: dict[str, Any] = found
    return named


def test_every_program_is_shown_with_both_ways() -> None:
    """Four programs; Claude Desktop starts servers only."""
    found = [entry(*block) for block in BLOCKS]
    assert sum("command" in one for one in found) == 4
    assert sum("url" in one or "httpUrl" in one for one in found) == 3


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{kind}-{n}" for n, (kind, _) in enumerate(BLOCKS)])
async def test_what_a_file_names_is_used(standing: Standing, block: tuple[str, str]) -> None:
    """The command is started with its arguments and environment, the address called with its headers."""
    found = entry(*block)
    if "command" not in found:
        assert found.get("httpUrl", found.get("url")) == "http://127.0.0.1:8081/mcp"
        sent = found.get("headers", {}).get("Authorization", f"Bearer ${found.get('bearer_token_env_var')}")
        assert sent.replace("{", "").replace("}", "") == "Bearer $VESSEL_KEY"
        async with standing.client(standing.mcp_url, key="vsl_any") as client:
            assert (await client.list_tools()).tools
        return
    command = found["command"].replace("/path/to/.venv/bin", str(Path(sys.executable).parent))
    assert list(found["env"]) == ["VESSEL_REDIS_URL"]
    environment = standing.environment() | {"VESSEL_REDIS_URL": standing.redis.url}
    started = json.dumps([command, found["args"], environment], sort_keys=True)
    if started in _started:  # the same, to the letter, was started for another program's file
        return
    _started.add(started)
    parameters = StdioServerParameters(command=command, args=found["args"], env=environment)
    async with Client(stdio_client(parameters)) as client:
        assert not (await client.call_tool("health", {})).is_error
