"""The algorithm of the OpenAI cookbook's parallel script, written anew: one process, one loop, capacity that refills.

It takes prompt + max tokens of each request off its own capacity, never gives back what was not used, tries a failed
request again up to five times, and pauses 15 s after a 429. Run with a file of work; prints what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp

ATTEMPTS = 5
PAUSE_S = 15.0
LOOP_S = 0.001


class Script:
    """One run over a file of requests."""

    def __init__(self, work: dict[str, Any], session: aiohttp.ClientSession) -> None:
        """Start with full capacity."""
        self.work, self.session = work, session
        self.waiting: deque[tuple[dict[str, Any], int]] = deque((row, ATTEMPTS) for row in work["requests"])
        self.requests_left, self.tokens_left = float(work["rpm"]), float(work["tpm"])
        self.limited_at = -PAUSE_S
        self.under_way: set[asyncio.Task[None]] = set()
        self.failed = 0

    async def run(self) -> None:
        """Send everything, as the capacity allows."""
        at = time.monotonic()
        while self.waiting or self.under_way:
            now = time.monotonic()
            refill = (now - at) / 60
            at = now
            self.requests_left = min(self.work["rpm"], self.requests_left + refill * self.work["rpm"])
            self.tokens_left = min(self.work["tpm"], self.tokens_left + refill * self.work["tpm"])
            if self.waiting and now - self.limited_at >= PAUSE_S:
                self._send_next()
            await asyncio.sleep(LOOP_S)

    def _send_next(self) -> None:
        row, attempts = self.waiting[0]
        tokens = row["prompt_tokens"] + row["body"]["max_completion_tokens"]
        if self.requests_left < 1 or self.tokens_left < tokens:
            return
        self.waiting.popleft()
        self.requests_left -= 1
        self.tokens_left -= tokens
        task = asyncio.ensure_future(self._call(row, attempts - 1))
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)

    async def _call(self, row: dict[str, Any], attempts: int) -> None:
        status = 0
        try:
            async with self.session.post(self.work["url"], json=row["body"]) as answer:
                await answer.read()
                status = answer.status
        except aiohttp.ClientError:
            pass
        if status == HTTPStatus.OK:
            return
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            self.limited_at = time.monotonic()
        if attempts:
            self.waiting.append((row, attempts))
        else:
            self.failed += 1


async def main(work: dict[str, Any]) -> None:
    """Run and print."""
    headers = {"authorization": f"Bearer {work['key']}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        script, started = Script(work, session), time.monotonic()
        await script.run()
        print(json.dumps({"makespan_s": time.monotonic() - started, "failed": script.failed}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text("utf-8"))))
