"""Another program with the same key: sends requests at random moments, so many tokens a second, until it is stopped.

Takes URL, key, model and tokens a second. A refused request is sent again until it is let in, as an impatient client
does. Its calls carry `user: foreign`, by which the upstream's log tells them apart.
"""

from __future__ import annotations

import asyncio
import random
import sys
from http import HTTPStatus

import aiohttp

PROMPT_TOKENS, OUTPUT_TOKENS = 237, 130
NAME = "foreign"


async def call(session: aiohttp.ClientSession, url: str, body: dict[str, object], dice: random.Random) -> None:
    """Send one request until it is let in."""
    while True:
        async with session.post(url, json=body) as answer:
            await answer.read()
            if answer.status != HTTPStatus.TOO_MANY_REQUESTS:
                return
        await asyncio.sleep(dice.uniform(0.05, 0.15))


async def main(url: str, key: str, model: str, tokens_per_s: float) -> None:
    """Send until the process is ended."""
    dice, under_way, number = random.Random(7), set(), 0  # noqa: S311  repeatable on purpose
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
        while True:
            await asyncio.sleep(dice.expovariate(tokens_per_s / (PROMPT_TOKENS + OUTPUT_TOKENS)))
            number += 1
            text = f"Foreign {number:06d} <<tokens:{OUTPUT_TOKENS}>>"
            text += " the" * (PROMPT_TOKENS - 4 - len(text) // 4)
            messages = [{"role": "user", "content": text}]
            body = {"model": model, "messages": messages, "max_completion_tokens": OUTPUT_TOKENS, "user": NAME}
            task = asyncio.ensure_future(call(session, url, body, dice))
            under_way.add(task)
            task.add_done_callback(under_way.discard)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
