"""Longer looks in a browser: Flower beside the console, Redis and the API gone and back, a thousand batches."""

from __future__ import annotations

import json
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.conftest import CANARY, HOSTILE, ask, batch, failed_job
from tests.integration.observed import LOGIN, Observed
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser

    from tests.api.serving import Served

pytestmark = pytest.mark.system


def test_redis_and_the_api_go_away_and_come_back(opened: Callable[..., Any], vessel: Served) -> None:
    """What was seen stays, greyed out, with the cause; it goes on by itself, and no button lies meanwhile."""
    with opened() as page:
        banner = page.locator("#banner")
        vessel.redis.stop()
        banner.get_by_text("Redis cannot be reached").wait_for(timeout=30_000)
        page.locator("#board.stale").wait_for()
        assert page.locator("#tiers tr").count() > 5
        page.get_by_role("button", name="Begin maintenance …").click()
        page.locator("#maintain-form [type=submit]").click()
        page.locator("#maintain-error", has_text="Redis cannot be reached").wait_for(timeout=30_000)
        page.keyboard.press("Escape")
        vessel.redis.start()
        page.locator("#board:not(.stale)").wait_for(timeout=30_000)
        port = int(vessel.url.rpartition(":")[2])
        vessel.stop_api(signal.SIGKILL)
        banner.get_by_text("Connection lost.").wait_for()
        vessel.start_api(port=port)
        page.get_by_role("button", name="Try now").click()
        page.locator("#board:not(.stale)").wait_for(timeout=30_000)


def changed(note: Any, before: str) -> bool:
    """Tell whether a text is another one."""
    return bool(note.inner_text() != before)


@pytest.mark.timeout(600)
def test_a_thousand_batches(opened: Callable[..., Any], vessel: Served) -> None:
    """The newest are there at once, the others page by page; long names break nothing."""
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}
    body = {"model": "openai/gpt-oss-20b", "messages": [{"role": "user", "content": CANARY}], "max_tokens": 5}
    with vessel.openai(api_key=vessel.keys["ann"]["key"]) as sdk:
        file = sdk.files.create(file=("one.jsonl", json.dumps(line | {"body": body}).encode() + b"\n"), purpose="batch")
        for number in range(1000):
            sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h",
                               metadata={"n": str(number), "long": "W" * 300, "x": HOSTILE})  # fmt: skip
    with opened("ann") as page:
        note, more = page.locator("#batches-note"), page.locator("#more")
        note.get_by_text("of 1,000 shown").wait_for()
        while more.is_visible():
            before = note.inner_text()
            more.click(timeout=120_000)  # a busy machine draws a thousand rows slowly, and the button moves meanwhile
            wait_until(partial(changed, note, before))
        rows = page.locator("#batches tbody tr, #older tbody tr")
        wait_until(lambda: rows.count() == 1000, 30)
        assert page.evaluate("document.documentElement.scrollWidth") == 1280
        assert page.title() == "Vessel"


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Serve with Flower beside it."""
    with Observed(tmp_path_factory.mktemp("flower")) as stack:
        stack.keys["chief"] = stack.run_cli("keys", "create", "--admin")
        stack.start_worker()
        stack.start_flower()
        yield stack.start_api()


def test_flower_shows_the_same_work(browser: Browser, observed: Observed) -> None:
    """A batch that runs, jobs that a maintenance holds and a failed one, as messages; never a prompt."""
    failed = failed_job(observed, "chief")
    ask(observed, "chief", "PUT", "/v1/maintenance", {"tier": "power", "reason": "keys rotate"})
    body = {"model": "power", "messages": [{"role": "user", "content": CANARY}]}
    held = ask(observed, "chief", "POST", "/v1/jobs", body)["id"]
    batch(observed, "chief", 20)
    context = browser.new_context(http_credentials={"username": LOGIN[0], "password": LOGIN[1]},
                                  viewport={"width": 1360, "height": 800})  # fmt: skip
    page = context.new_page()
    wanted = (failed, "failed on openai/gpt-oss-120b", held, "succeeded on openai/gpt-oss-20b")
    try:

        def shown() -> bool:
            page.goto(f"{observed.flower_url}/tasks")
            page.locator("#tasks-table tbody tr").first.wait_for()
            page.get_by_label("Tasks per page").select_option(index=3)
            page.wait_for_load_state("networkidle")
            text = page.locator("#tasks-table").inner_text()
            return all(part in text for part in wanted)

        wait_until(shown, 60)
        assert CANARY not in page.content()
        page.screenshot(path=observed.folder / "flower.png")
        page.goto(f"{observed.flower_url}/workers")
        page.get_by_text("w1@stack").first.wait_for()
    finally:
        context.close()
        ask(observed, "chief", "DELETE", "/v1/maintenance")
