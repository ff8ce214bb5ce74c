"""One served vessel with keys and one headless Chromium for each module that looks at the page."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.serving import Served
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

CANARY = "CANARY-7f31"
HOSTILE = '<img src=x onerror="document.title=1">'
AXE = Path(__file__).parent / "axe" / "axe.min.js"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Debian's Chromium; playwright's own download is not used."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no chromium on PATH; apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install playwright")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def vessel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve with keys of an admin and of a tenant, a worker for all tiers, and a simulator that takes its time."""
    with Served(tmp_path_factory.mktemp("console")) as stack:
        stack.keys["chief"] = stack.run_cli("keys", "create", "--admin")
        stack.keys["ann"] = stack.run_cli("keys", "create", "--tenant", "ann")
        stack.start_worker()
        yield stack.start_api()


def ask(stack: Served, name: str, method: str, path: str, body: Any = None) -> Any:
    """Ask the API with a key."""
    with stack.http(headers={"authorization": f"Bearer {stack.keys[name]['key']}"}) as client:
        answer = client.request(method, path, json=body)
    assert answer.is_success, answer.text
    return answer.json()


def batch(stack: Served, who: str, lines: int, **metadata: str) -> str:
    """Make a batch of so many lines."""
    line = {"method": "POST", "url": "/v1/chat/completions"}
    body = {"model": "openai/gpt-oss-20b", "messages": [{"role": "user", "content": CANARY}], "max_tokens": 20}
    text = "".join(json.dumps({"custom_id": f"r{n}", "body": body} | line) + "\n" for n in range(lines))
    with stack.openai(api_key=stack.keys[who]["key"]) as sdk:
        file = sdk.files.create(file=("lines.jsonl", text.encode()), purpose="batch")
        made = sdk.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata=metadata
        )
    return made.id


def failed_job(stack: Served, name: str) -> str:
    """Make a job that Groq refuses; its prompt is the canary, its tag an attempt at markup."""
    stack.ask("/_sim/faults", {"kind": "status", "status": 400, "match": f"refuse {CANARY}"})
    messages = [{"role": "user", "content": f"refuse {CANARY}"}]
    body = {"model": "power", "messages": messages, "vessel": {"tags": {"note": HOSTILE}}}
    job_id: str = ask(stack, name, "POST", "/v1/jobs", body)["id"]
    wait_until(lambda: ask(stack, name, "GET", f"/v1/jobs/{job_id}")["finished_at"])
    return job_id


@pytest.fixture
def opened(browser: Browser, vessel: Served) -> Iterator[Callable[..., Any]]:
    """Give a way to open the page in a fresh profile; whatever the page complains about fails the test."""
    complaints: list[str] = []

    @contextmanager
    def open_page(name: str | None = "chief", **options: Any) -> Iterator[Page]:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on("console", lambda told: complaints.append(told.text) if told.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        foreign: list[str] = []
        page.on("request", lambda sent: foreign.append(sent.url) if not sent.url.startswith(vessel.url) else None)
        page.goto(f"{vessel.url}/")
        if name is not None:
            page.get_by_label("API key").fill(vessel.keys[name]["key"])
            page.get_by_role("button", name="Sign in").click()
            page.locator("#board").wait_for()
        yield page
        context.close()
        assert foreign == []

    yield open_page
    # Answers like the 401 that asks for a key are told by browsers as well, and by the page in its own words.
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []
