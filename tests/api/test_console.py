"""The page at `/` and its feed: what is served to whom, and that a tenant's key shows its own work only."""

from __future__ import annotations

import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.serving import BODY, Served
from tests.waiting import wait_until
from vessel.api.pages import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

CANARY = "CANARY-console"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve with keys of two tenants and an admin; no worker is needed."""
    with Served(tmp_path_factory.mktemp("console")) as stack:
        stack.keys = {name: stack.run_cli("keys", "create", "--tenant", name) for name in ("ann", "bob", "eve", "kim")}
        stack.keys["chief"] = stack.run_cli("keys", "create", "--admin")
        yield stack.start_api()


def client(served: Served, name: str) -> httpx.Client:
    """Open a client with a key."""
    return served.http(headers={"authorization": f"Bearer {served.keys[name]['key']}"})


def frames(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Read the events of a stream."""
    event = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield event, json.loads(line.removeprefix("data: "))


def test_the_page_is_served_to_all_and_lets_nothing_foreign_in(keyed: Served) -> None:
    """Page and parts need no key, hold no data, name no other host, and come with a policy without exceptions."""
    with keyed.http() as http:
        page = http.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        for name, kind in KINDS.items():
            part = http.get(f"/static/{name}")
            assert (part.status_code, part.headers["content-type"]) == (200, kind)
            policy = part.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self';")
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert part.headers["x-content-type-options"] == "nosniff"
            assert part.headers["referrer-policy"] == "no-referrer"
        parts = set(re.findall(r'(?:src|href)="/static/([^"]+)"', page.text))
        assert parts <= set(KINDS)
        assert not re.search(r"(?:src|href)=\"(?:https?:)?//|\son\w+=|style=|<script>", page.text)
        tag = page.headers["etag"]
        assert http.get("/", headers={"if-none-match": tag}).status_code == 304
        assert http.head("/").content == b""
        assert http.get("/static/../app.py").status_code == 404
        assert http.get("/static/console.txt").status_code == 404


def test_every_file_of_the_folder_is_served() -> None:
    """What is shipped is served, and what is served is shipped: uPlot with its licence."""
    folder = resources.files("vessel.api").joinpath("static")
    assert {file.name for file in folder.iterdir()} == set(KINDS)
    assert "MIT" in folder.joinpath("uPlot.LICENSE.txt").read_text("utf-8")


def test_there_is_no_data_without_a_key(keyed: Served) -> None:
    """Feed, stream and timelines are 401."""
    with keyed.http() as http:
        for path in ("/v1/console", "/v1/console/events", f"/v1/console/jobs/job_{'0' * 32}"):
            assert http.get(path).status_code == 401


def test_a_tenant_sees_its_own_work_and_the_headroom_of_all(keyed: Served) -> None:
    """Jobs and timelines of others are absent; limits and tiers are the same for both."""
    with client(keyed, "ann") as ann, client(keyed, "bob") as bob:
        body = BODY | {"messages": [{"role": "user", "content": CANARY}], "vessel": {"context": {"of": CANARY}}}
        job_id = ann.post("/v1/jobs", json=body).json()["id"]
        mine = wait_until(lambda: found if (found := ann.get("/v1/console").json())["jobs"] else None)
        assert mine
        theirs = bob.get("/v1/console").json()
        assert [job["id"] for job in mine["jobs"]] == [job_id]
        assert theirs["jobs"] == []
        assert [gate["model"] for gate in mine["models"]] == [gate["model"] for gate in theirs["models"]]
        assert mine["tiers"]["data"][0]["name"] == theirs["tiers"]["data"][0]["name"]
        life = ann.get(f"/v1/console/jobs/{job_id}")
        assert [step["title"] for step in life.json()["timeline"]] == ["Accepted"]
        assert CANARY not in life.text + ann.get("/v1/console").text
        absent = bob.get(f"/v1/console/jobs/job_{'f' * 32}")
        foreign = bob.get(f"/v1/console/jobs/{job_id}")
        assert (foreign.status_code, foreign.content) == (404, absent.content)


def test_a_job_that_ended_without_a_result_is_listed_with_the_way_out(keyed: Served) -> None:
    """Its deadline passed; one that somebody cancelled is no failure."""
    with client(keyed, "kim") as kim, keyed.inside() as (door, runner):
        late, cancelled = (kim.post("/v1/jobs", json=BODY | {"vessel": {"deadline": s}}).json()["id"] for s in (1, 60))
        kim.delete(f"/v1/jobs/{cancelled}")
        job = runner.run(door.store.read(late))
        assert job is not None
        wait_until(lambda: runner.run(door.store.expire(job)).word == "closed")
        (failure,) = wait_until(lambda: kim.get("/v1/console").json()["failures"])
        assert (failure["id"], failure["reason"]) == (late, "deadline")
        assert "longer deadline" in failure["way_out"]
        life = kim.get(f"/v1/console/jobs/{late}").json()
        assert (life["timeline"][-1]["title"], life["timeline"][-1]["tone"]) == ("Expired", "bad")


def test_the_stream_sends_all_at_first_and_then_what_changed(keyed: Served) -> None:
    """The second event has the clock and not the limits; maintenance comes when it begins."""
    with client(keyed, "chief") as chief, chief.stream("GET", "/v1/console/events") as answer:
        told = frames(answer)
        event, first = next(told)
        assert event == "seen"
        assert first["who"] == {"tenant": "default", "admin": True, "keyed": True}
        assert {"tiers", "models", "batches", "failures", "spending", "maintenance"} <= set(first)
        _, second = next(told)
        assert "clock" in second
        assert "models" not in second
        with client(keyed, "chief") as other:
            other.put("/v1/maintenance", json={"tier": "power", "reason": "keys rotate"})
            (window,) = next(news["maintenance"]["maintenance"] for _, news in told if "maintenance" in news)
            assert (window["tier"], window["reason"]) == ("power", "keys rotate")
            other.delete("/v1/maintenance")


def test_a_revoked_key_ends_its_stream(keyed: Served) -> None:
    """It is told, and nothing more comes."""
    with client(keyed, "eve") as eve, eve.stream("GET", "/v1/console/events") as answer:
        told = frames(answer)
        next(told)
        keyed.run_cli("keys", "revoke", keyed.keys["eve"]["id"])
        assert [event for event, _ in told][-1] == "signed_out"


def test_nothing_is_read_while_nobody_looks(keyed: Served) -> None:
    """Once the last viewer has left the looks end; all viewers of a tenant share them."""
    with client(keyed, "ann") as ann, keyed.inside() as (_, runner):
        viewers = [ann.stream("GET", "/v1/console/events") for _ in range(4)]
        streams = [viewer.__enter__() for viewer in viewers]
        told = [frames(answer) for answer in streams]
        ats = [[next(one)[1]["clock"]["at"] for _ in range(3)] for one in told]
        assert len({at for some in ats for at in some}) <= 4
        for viewer in viewers:
            viewer.__exit__(None, None, None)

        def looks() -> int:
            stats: Any = runner.client.info("commandstats")
            return int(stats.get("cmdstat_zcount", {"calls": 0})["calls"])

        def still() -> bool:
            before = looks()
            wait_until(lambda: ann.get("/v1/maintenance").is_success)
            return looks() == before

        wait_until(still)
