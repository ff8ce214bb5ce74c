"""Take the README's pictures of the console: a whole vessel with simulated work, seen by a headless Chromium.

Run it after a change to the page: `.venv/bin/python docs/show_console.py`. Needs `chromium` on PATH.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import sync_playwright  # noqa: E402  the root comes first

from tests.api.serving import Served  # noqa: E402  the same
from vessel.usage.sums import figures_of  # noqa: E402  the same

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGES = ROOT / "docs" / "images"
WIDE = {"width": 1360, "height": 1130}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True}
MODELS = {"openai/gpt-oss-20b": "ultra_fast", "openai/gpt-oss-120b": "power", "qwen/qwen3.8-27b": "balanced"}
COSTS = {"openai/gpt-oss-20b": 0.00017, "openai/gpt-oss-120b": 0.00035, "qwen/qwen3.8-27b": 0.0011}


def earlier(stack: Served) -> None:
    """Write what simulated hours cost, so that the day's chart has a day in it."""
    dice = random.Random(7)  # noqa: S311  no secret
    with stack.inside() as (door, runner):
        now: Any = runner.client.time()
        today = int(now[0]) // 86400 * 86400
        moments = sorted(today + int(dice.betavariate(2.2, 1.4) * (int(now[0]) - today - 60)) for _ in range(1500))
        for number, at in enumerate(moments):
            model = dice.choices(list(MODELS), weights=(6, 4, 1))[0]
            row = {"model": model, "tokens": {"input": dice.randint(80, 600), "output": dice.randint(40, 400)},
                   "cost_usd": round(COSTS[model] * dice.uniform(0.5, 2), 8), "tier": MODELS[model],
                   "tenant": "default"}  # fmt: skip
            fields: Any = {"call": f"m{number}/1", "outcome": "succeeded", "row": json.dumps(row)}
            runner.client.xadd(door.keys.ledger, fields, id=f"{at * 1000}-{number}")
            entry = f"{at * 1000}-{number}", {name: str(value).encode() for name, value in fields.items()}
            for one in figures_of(entry, tags=False):  # as the step does that writes an entry
                of = f"{one.hour}|{one.what}|{one.tenant}|{one.model}|{one.tier}|{one.vessel}"
                runner.client.hincrby(door.keys.sums(), of, one.amount)


def batch(stack: Served, lines: int, name: str, *, output: int = 60, model: str = "") -> None:
    """Submit a batch."""
    line = {"method": "POST", "url": "/v1/chat/completions"}
    models = [model] if model else ["openai/gpt-oss-20b", "openai/gpt-oss-120b", "openai/gpt-oss-20b"]
    text = ""
    for n in range(lines):
        messages = [{"role": "user", "content": f"Summarise ticket {n}"}]
        body = {"model": models[n % len(models)], "messages": messages, "max_tokens": output}
        text += json.dumps({"custom_id": f"r{n}", "body": body} | line) + "\n"
    with stack.openai() as sdk:
        file = sdk.files.create(file=("lines.jsonl", text.encode()), purpose="batch")
        sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h",
                           metadata={"name": name, "team": "support"})  # fmt: skip


def work(stack: Served) -> str:
    """Give it something to do; returns the job whose life is shown."""
    refused = {"error": {"message": "messages.0: content must not be empty", "type": "invalid_request_error"}}
    stack.ask("/_sim/faults", [{"kind": "status", "status": 400, "match": "malformed", "body": refused},
                               {"kind": "status", "status": 500, "match": "unlucky", "count": 2}])  # fmt: skip
    batch(stack, 40, "contract checks")
    batch(stack, 300, "weekly digest")
    with stack.http() as http:

        def job(prompt: str, **policy: Any) -> str:
            body = {"model": "auto", "messages": [{"role": "user", "content": prompt}], "vessel": policy}
            return str(http.post("/v1/jobs", json=body).json()["id"])

        told = job("unlucky", tier="power", fallback="none", tags={"team": "support"})
        job("malformed", tier="balanced")
        http.put("/v1/maintenance", json={"tier": "compound_mini", "until": "2h", "reason": "search keys rotate"})
        for tier in ("ultra_fast", "compound_mini", "compound_mini", "speed_demon", "power"):
            job("hello", tier=tier)
        job("late", tier="compound_mini", deadline="2s")
    time.sleep(9)
    batch(stack, 9000, "nightly summaries")
    time.sleep(12)
    limited = {"kind": "rate_limit", "model": "qwen/qwen3.8-27b", "retry_after": "40", "count": 1}
    stack.ask("/_sim/faults", limited)
    batch(stack, 400, "translation of the handbook", output=3000, model="qwen/qwen3.8-27b")
    time.sleep(3)
    return told


def picture(browser: Browser, url: str, name: str, job: str = "", **options: Any) -> None:
    """Take one."""
    context = browser.new_context(**options)
    page = context.new_page()
    page.goto(url)
    page.locator("#board").wait_for()
    page.wait_for_timeout(3500)
    if job:
        page.get_by_label("Job id").fill(job)
        page.get_by_role("button", name="Look up").click()
        page.locator(".timeline").wait_for()
        page.wait_for_timeout(300)
    page.screenshot(path=IMAGES / name)
    context.close()


def main() -> None:
    """Take them all."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("chromium is not on PATH; apt-get install chromium")
    IMAGES.mkdir(exist_ok=True)
    with Served(Path(tempfile.mkdtemp(prefix="vessel-show-"))) as stack, sync_playwright() as playwright:
        stack.simulator_args = ("--latency-scale", "0.3")
        earlier(stack)
        stack.start_worker()
        stack.start_api()
        job = work(stack)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        picture(browser, stack.url, "console.png", viewport=WIDE, color_scheme="light")
        picture(browser, stack.url, "console-job.png", job, viewport=WIDE | {"height": 860}, color_scheme="dark")
        picture(browser, stack.url, "console-phone.png", **PHONE, color_scheme="dark")
        browser.close()


if __name__ == "__main__":
    main()
