"""async-batch-llm 0.28 over a file of work, in one process; run by the Python of a venv that has it.

Told the true limits and what a request reserves, and of each answer the usage; its cooldown is cut from 300 s to 2 s,
without which one 429 stops everything for five minutes. Prints what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
from async_batch_llm import (  # type: ignore[import-not-found]  # in a venv of its own
    CallableStrategy,
    CallOutcome,
    LLMWorkItem,
    ParallelBatchProcessor,
    ProcessorConfig,
    RateLimitConfig,
    TokenEstimate,
)

IN_FLIGHT = 256
COOLDOWN_S = 2.0


async def run(work: dict[str, Any], session: aiohttp.ClientSession) -> int:
    """Process everything; returns how many failed."""
    rows = {str(number): row for number, row in enumerate(work["requests"])}

    async def invoke(prompt: str, *, attempt: int, timeout: float, state: Any) -> Any:  # noqa: ASYNC109  its interface
        del attempt, timeout, state
        async with session.post(work["url"], json=rows[prompt]["body"], raise_for_status=True) as answer:
            usage = (await answer.json())["usage"]
        tokens = {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
        return CallOutcome(output="", token_usage={**tokens, "total_tokens": usage["total_tokens"]})

    def estimate(prompt: str, **_: Any) -> Any:
        row = rows[prompt]
        return TokenEstimate(row["prompt_tokens"], row["body"]["max_completion_tokens"])

    config = ProcessorConfig(
        concurrency=IN_FLIGHT,
        max_requests_per_minute=work["rpm"],
        max_tokens_per_minute=work["tpm"],
        token_estimator=estimate,
        rate_limit=RateLimitConfig(cooldown_seconds=COOLDOWN_S, slow_start_items=0),
    )
    strategy = CallableStrategy(invoke)
    async with ParallelBatchProcessor(config=config) as processor:
        for number in rows:
            await processor.add_work(LLMWorkItem(item_id=number, strategy=strategy, prompt=number))
        result = await processor.process_all()
    return sum(not item.success for item in result.results)


async def main(work: dict[str, Any]) -> None:
    """Run and print."""
    logging.disable(logging.CRITICAL)
    headers = {"authorization": f"Bearer {work['key']}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        started = time.monotonic()
        failed = await run(work, session)
        print(json.dumps({"makespan_s": time.monotonic() - started, "failed": failed}))


if __name__ == "__main__":
    asyncio.run(main(json.loads(Path(sys.argv[1]).read_text("utf-8"))))
