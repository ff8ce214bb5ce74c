"""The console in a browser: what people look at when they ask where their work is, and steer with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.e2e.conftest import AXE, CANARY, HOSTILE, ask, batch, failed_job
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Page

    from tests.api.serving import Served

PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
SERIOUS = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
  .filter((found) => ["serious", "critical"].includes(found.impact))
  .map((found) => `${found.id}: ${found.nodes.map((node) => node.html.slice(0, 160)).join(" | ")}`)"""


def serious(page: Page) -> list[str]:
    """Let axe-core look at the page as it is. Its script comes by the debugger, which the page's policy lets in."""
    page.evaluate(AXE.read_text("utf-8"))
    found: list[str] = page.evaluate(SERIOUS)
    return found


def test_a_batch_that_runs_is_seen_with_its_progress(opened: Callable[..., Any], vessel: Served) -> None:
    """Its name, how far it is, and when it will be done; text that looks like markup stays text."""
    batch_id = batch(vessel, "chief", 1500, name=HOSTILE)
    with opened() as page:
        row = page.locator(f'tr[data-key="{batch_id}"]')
        row.get_by_text("in progress").wait_for()
        assert HOSTILE in row.inner_text()
        bar = row.get_by_role("progressbar")
        first = int(bar.get_attribute("aria-valuenow"))
        wait_until(lambda: int(bar.get_attribute("aria-valuenow")) > first)
        row.get_by_text("in about").wait_for()
        assert page.locator("#spending").get_by_text("openai/gpt-oss-20b").is_visible()
        assert page.locator("#chart canvas").is_visible()
        assert page.title() == "Vessel"
        assert CANARY not in page.content()
        assert serious(page) == []
    ask(vessel, "chief", "POST", f"/v1/batches/{batch_id}/cancel")


def test_maintenance_is_begun_and_ended_by_keyboard_alone(opened: Callable[..., Any], vessel: Served) -> None:
    """Tab, Enter and typing do it; the dialog keeps the focus, Escape changes nothing, and focus comes back."""
    with opened() as page:
        page.locator(".skip").focus()
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        button = page.get_by_role("button", name="Begin maintenance …")
        tab_to(page, "Begin maintenance …")
        page.keyboard.press("Enter")
        page.locator("dialog#maintain[open]").wait_for()
        assert serious(page) == []
        page.keyboard.press("Escape")
        page.locator("dialog#maintain").wait_for(state="hidden")
        assert not ask(vessel, "chief", "GET", "/v1/maintenance")["active"]
        assert button.evaluate("(node) => node === document.activeElement")
        page.keyboard.press("Enter")
        page.keyboard.type("only tier power")
        page.keyboard.press("Tab")
        page.keyboard.type("1 hour")
        page.keyboard.press("Tab")
        page.keyboard.type(HOSTILE)
        page.keyboard.press("Enter")
        window = page.locator(".window")
        window.get_by_text("Tier power").wait_for()
        assert HOSTILE in window.inner_text()
        (told,) = ask(vessel, "chief", "GET", "/v1/maintenance")["maintenance"]
        assert (told["tier"], told["reason"], told["until"] is None) == ("power", HOSTILE, False)
        page.locator("#status", has_text="degraded").wait_for()
        tab_to(page, "End for power")
        page.keyboard.press("Enter")
        page.get_by_role("dialog").get_by_role("button", name="End maintenance").press("Enter")
        page.get_by_text("Nothing is in maintenance.").wait_for()
    assert not ask(vessel, "chief", "GET", "/v1/maintenance")["active"]


def tab_to(page: Page, text: str) -> None:
    """Go on by the Tab key to what has this text; what has the focus shows it."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == text:
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid"
            return
    raise AssertionError(text)


def test_a_failed_job_tells_its_life_and_the_way_out(opened: Callable[..., Any], vessel: Served) -> None:
    """From the list of failures to its timeline: accepted, its attempt by model, how it ended; never the prompt."""
    job_id = failed_job(vessel, "chief")
    with opened() as page:
        item = page.locator(f'#failures li[data-key="{job_id}"]')
        item.get_by_text("bad_request").wait_for()
        assert "Correct it, then submit it as a new job." in item.inner_text()
        item.get_by_role("button").click()
        dialog = page.get_by_role("dialog", name="Job job_")
        dialog.get_by_text("Attempt 1 on").wait_for()
        titles = dialog.locator(".timeline .strong").all_inner_texts()
        assert [titles[0], titles[-1]] == ["Accepted", "Failed"]
        assert "openai/gpt-oss-120b" in dialog.locator(".timeline .call").inner_text()
        assert HOSTILE in dialog.inner_text()
        assert CANARY not in page.content()
        assert serious(page) == []
        page.keyboard.press("Escape")
        page.get_by_label("Job id").fill(f"job_{'0' * 32}")
        page.get_by_role("button", name="Look up").click()
        assert "There is no such job" in page.get_by_role("dialog").get_by_role("alert").inner_text()


def test_a_phone_in_the_dark(opened: Callable[..., Any], vessel: Served) -> None:
    """At 360 pixels nothing scrolls sideways, all sections are there, and it is dark."""
    batch_id = batch(vessel, "chief", 3, name="a" * 60)
    with opened(**PHONE, color_scheme="dark") as page:
        page.locator(f'[data-key="{batch_id}"]').get_by_text("completed").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(14, 19, 24)"
        titles = page.get_by_role("heading", level=2).all_inner_texts()
        assert {"Tiers", "Limits", "Batches", "Spending today", "Recent failures"} <= set(titles)
        assert serious(page) == []


def test_a_key_opens_its_own_work_only(opened: Callable[..., Any], vessel: Served) -> None:
    """Without one there is no data at all; a wrong one is told; a tenant sees headroom and nobody else's work."""
    job_id = failed_job(vessel, "chief")
    with opened(None) as page:
        page.locator("#login").wait_for()
        assert serious(page) == []
        page.get_by_label("API key").fill("vsl_0000000000000000_" + "A" * 43)
        page.keyboard.press("Enter")
        page.get_by_text("The API key is missing or not valid.").wait_for()
        assert not page.locator("#board").is_visible()
    with opened("ann") as page:
        page.get_by_role("meter").first.wait_for()
        assert "No job has failed." in page.locator("#failures").inner_text()
        assert "No batch yet" in page.locator("#batches").inner_text()
        assert "An admin key may begin" in page.locator("#steer").inner_text()
        assert job_id not in page.content()
        page.get_by_role("button", name="Sign out").click()
        page.locator("#login").wait_for()
        assert page.evaluate("sessionStorage.length") == 0
        assert page.locator("#batches").inner_text() == ""


def test_a_key_that_is_revoked_shows_nothing_any_more(opened: Callable[..., Any], vessel: Served) -> None:
    """Whoever is looking is signed out within seconds, and what was shown is gone."""
    vessel.keys["leaving"] = vessel.run_cli("keys", "create", "--tenant", "ann")
    with opened("leaving") as page:
        vessel.run_cli("keys", "revoke", vessel.keys["leaving"]["id"])
        page.get_by_text("This key does not open anything any more.").wait_for()
        assert not page.locator("#board").is_visible()
        assert page.locator("#tiers").inner_text() == ""
