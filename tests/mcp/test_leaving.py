"""Whoever leaves takes their question back: no job of a caller who is gone waits in Redis; submitted ones go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.mcp.standing import HEADERS, INITIALIZE, headers, request
from tests.waiting import wait_until, wait_until_async
from vessel.keyspace.server import clock
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.mcp.standing import Standing

pytestmark = pytest.mark.anyio
ASKED = [("query", {"prompt": "wait"}), ("generate_code", {"prompt": "wait"})]
CLIENT = """
import asyncio, sys
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

async def main():
    command, *rest = sys.argv[1:]
    async with Client(stdio_client(StdioServerParameters(command=command, args=rest, env={env!r}))) as client:
        await client.call_tool("query", {"prompt": "wait"})

asyncio.run(main())
"""


@pytest.fixture
def held(standing: Standing) -> Iterator[Standing]:
    """Let all jobs wait."""
    with standing.held():
        yield standing


async def until_waiting(standing: Standing, count: int = 1) -> None:
    """Wait until so many jobs wait."""

    async def there() -> bool:
        return len(standing.open_jobs()) == count

    await wait_until_async(there)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize(("tool", "arguments"), ASKED)
async def test_a_cancelled_call_cancels_its_job(held: Standing, mode: str, tool: str, arguments: Any) -> None:
    """What holds the job is told as progress before; other calls of the connection go on."""
    told: list[str] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        del progress, total
        told.append(message or "")

    async with held.client(held.mcp_url, mode=mode) as client:
        call = asyncio.ensure_future(client.call_tool(tool, arguments, progress_callback=hear))
        await wait_until_async(lambda: _true(any("maintenance" in words for words in told)))
        assert len(held.open_jobs()) == 1
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        await until_waiting(held, 0)
        assert not (await client.call_tool("health", {})).is_error


async def _true(value: bool) -> bool:  # noqa: FBT001  a condition
    return value


async def test_a_dropped_connection_cancels_the_jobs_of_its_calls(held: Standing) -> None:
    """Today's protocol: the response stream of a call is closed."""
    async with httpx.AsyncClient(timeout=30) as http:
        for tool, arguments in ASKED:
            params = {"name": tool, "arguments": arguments}
            sent = asyncio.ensure_future(
                http.post(held.mcp_url, json=request("tools/call", params), headers=headers("tools/call", tool))
            )
            await until_waiting(held)
            sent.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sent
            await until_waiting(held, 0)


async def test_a_dropped_connection_of_a_session_does_the_same(held: Standing) -> None:
    """The protocol before: no answer is kept to be sent again, so that of a lost stream is lost."""
    async with httpx.AsyncClient(timeout=30) as http:
        opened = await http.post(held.mcp_url, json=INITIALIZE, headers=HEADERS)
        more = HEADERS | {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
        await http.post(held.mcp_url, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=more)
        asked = {"jsonrpc": "2.0", "id": 2, "method": "tools/call",
                 "params": {"name": "query", "arguments": {"prompt": "wait"}}}  # fmt: skip
        sent = asyncio.ensure_future(http.post(held.mcp_url, json=asked, headers=more))
        await until_waiting(held)
        sent.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sent
        await until_waiting(held, 0)
        assert (await http.delete(held.mcp_url, headers=more)).status_code == 200


async def test_submitted_work_goes_on_without_its_caller(standing: Standing) -> None:
    """It is there for whoever comes back, over another connection."""
    with standing.held():
        async with standing.client(standing.mcp_url) as client:
            made = (await client.call_tool("submit_job", {"prompt": "later"})).structured_content
        assert made is not None
        assert [job.id for job in standing.open_jobs()] == [made["job_id"]]
    async with standing.client(standing.mcp_url, mode="legacy") as client:
        done = (await client.call_tool("get_job", {"job_id": made["job_id"], "wait_s": 20})).structured_content
    assert done is not None
    assert done["state"] == JobState.SUCCEEDED


async def test_a_wait_that_is_over_says_how_to_go_on(held: Standing) -> None:
    """The job is there, and can be looked at and cancelled by its id."""
    async with held.client(held.mcp_url) as client:
        late = await client.call_tool("query", {"prompt": "wait", "timeout_s": 0.5})
        assert late.is_error
        (job,) = held.open_jobs()
        assert f"get_job (job_id {job.id})" in late.content[0].text  # type: ignore[union-attr]  # a text
        seen = (await client.call_tool("get_job", {"job_id": job.id, "wait_s": 0.2})).structured_content
        assert seen is not None
        assert seen["waiting"]["why"] == "maintenance"
        gone = (await client.call_tool("cancel_job", {"job_id": job.id})).structured_content
        assert gone == {"id": job.id, "state": "cancelled", "cancelled": True}


NO_MESSAGES = (b"junk", b"[1]", b"", b'{"a":"' + b"x" * (21 << 20))


def _begin(standing: Standing, *lines: bytes) -> subprocess.Popen[bytes]:
    """Ask by a child of ours, after other lines, until its job waits."""
    child = standing.spawn_stdio()
    assert child.stdin is not None
    child.stdin.writelines(line + b"\n" for line in lines)
    child.stdin.write(json.dumps(request("tools/call", {"name": "query", "arguments": {"prompt": "wait"}})).encode())
    child.stdin.write(b"\n")
    child.stdin.flush()
    wait_until(lambda: len(standing.open_jobs()) == 1)
    return child


def test_a_host_that_ends_leaves_nothing(held: Standing) -> None:
    """The child ends when its input does, as it does when its host is killed; lines before that were none are told."""
    child = _begin(held, *NO_MESSAGES)
    out, errors = child.communicate(timeout=60)
    assert (child.returncode, held.open_jobs()) == (0, [])
    answers = [json.loads(line) for line in out.splitlines()]
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)
    assert [answer["error"]["code"] for answer in answers if answer["id"] is None] == [-32700, -32600, -32600]
    assert b"Traceback" not in errors


@pytest.mark.system
def test_a_child_that_is_told_to_end_leaves_nothing(held: Standing) -> None:
    """As hosts do that do not close its input."""
    child = _begin(held)
    child.terminate()
    assert (child.wait(30), held.open_jobs()) == (0, [])
    child.communicate()


@pytest.mark.system
def test_kill_9_of_the_host_leaves_no_orphan(held: Standing) -> None:
    """A host of the SDK's, killed while its call waits."""
    env = held.environment()
    host = subprocess.Popen(
        [sys.executable, "-c", CLIENT.replace("{env!r}", "dict(__import__('os').environ)"), sys.executable, "-m",
         "vessel.cli.main", "mcp"], env=env,
    )  # fmt: skip
    wait_until(lambda: len(held.open_jobs()) == 1, 60)
    (server,) = _children(host.pid)
    host.send_signal(signal.SIGKILL)
    host.wait(30)
    wait_until(lambda: held.open_jobs() == [], 30)
    wait_until(lambda: not _lives(server), 30)


@pytest.mark.system
def test_kill_9_of_the_server_leaves_no_orphan_that_is_paid_for(standing: Standing) -> None:
    """Its queries wait until a worker has them, which drops what nobody has read for a while."""
    with standing.held():
        child = _begin(standing)
        (job,) = standing.open_jobs()
        wait_until(lambda: job_of(standing, job.id).read_at is not None)
        child.kill()
        child.communicate()
        since = job_of(standing, job.id).read_at
        assert since is not None
        with standing.inside() as (_, runner):
            wait_until(lambda: runner.run(clock()) - since > 10_500, 30)
    wait_until(lambda: standing.open_jobs() == [], 30)
    ended = job_of(standing, job.id)
    assert (ended.state, len(ended.attempts)) == (JobState.CANCELLED, 0)


def job_of(standing: Standing, job_id: str) -> Any:
    """Read a job."""
    with standing.inside() as (door, runner):
        return runner.run(door.store.peek(job_id))


def _children(pid: int) -> list[int]:
    return [int(part) for part in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _lives(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
