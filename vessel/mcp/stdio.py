"""The server on standard input and output, for a host that starts it as its child."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from typing import TYPE_CHECKING, Any, cast

import mcp_types as types
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vessel.mcp.server import VesselServer

LONGEST_LINE = 20 * 1024 * 1024
PIECE = 64 * 1024
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Lines:
    """Standard input, line by line, read on the loop: a thread that reads would hold the process until the next line.

    What is no JSON-RPC message is answered here and goes no further.
    """

    def __init__(self) -> None:
        """Read nothing yet."""
        self.writing: Any = None

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield every message's line."""
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        held, too_long = bytearray(), False
        while piece := await reader.read(PIECE):
            *ended, rest = piece.split(b"\n")
            for part in ended:
                line = bytes(held) + part
                held.clear()
                if too_long or not await self._is_message(line):
                    too_long = False
                    continue
                yield line.decode(errors="replace")
            held += rest
            if len(held) > LONGEST_LINE and not too_long:
                too_long = True
                await self._refuse(types.INVALID_REQUEST, f"The line is longer than {LONGEST_LINE:,} bytes.")
            if too_long:
                held.clear()

    async def _is_message(self, line: bytes) -> bool:
        if not line.strip():
            return False
        try:
            types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError as error:
            broken = "Invalid JSON" in str(error)
            code = types.PARSE_ERROR if broken else types.INVALID_REQUEST
            await self._refuse(code, "The line is not JSON." if broken else "The line is not one JSON-RPC message.")
            return False
        return True

    async def _refuse(self, code: int, message: str) -> None:
        fault = types.JSONRPCError(jsonrpc="2.0", id=None, error=types.ErrorData(code=code, message=message))
        await self.writing.send(SessionMessage(fault))


async def serve_stdio(server: VesselServer) -> signal.Signals | None:
    """Serve until standard input ends (None) or a signal comes, which is returned. Open calls are cancelled then."""
    asked: list[signal.Signals] = []
    loop, serving = asyncio.get_running_loop(), asyncio.ensure_future(_serve(server))

    def stop(number: signal.Signals) -> None:
        asked.append(number)
        serving.cancel()

    for number in NUMBERS:
        loop.add_signal_handler(number, stop, number)
    try:
        await asyncio.wait({serving})
        if not serving.cancelled() and (error := serving.exception()) is not None:
            raise error
    finally:
        for number in NUMBERS:
            loop.remove_signal_handler(number)
    return asked[0] if asked else None


async def _serve(server: VesselServer) -> None:
    # Files and /dev/null cannot be waited for; a thread reads them, and they end by themselves.
    kind = os.fstat(sys.stdin.fileno()).st_mode
    waitable = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or sys.stdin.isatty()
    lines = Lines() if waitable else None
    async with stdio_server(stdin=cast("Any", lines)) as (reading, writing):
        if lines is not None:
            lines.writing = writing
        await server.run(reading, writing, server.create_initialization_options())
