"""The jobs of REST: enqueue, wait, list, cancel, run again, follow; and what is told of the vessel."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.serving import BODY
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.api.serving import Served


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    """Open a plain client."""
    with served.http() as client:
        yield client


@pytest.fixture
def held(http: httpx.Client) -> Iterator[None]:
    """Hold all jobs meanwhile."""
    http.put("/v1/maintenance", json={})
    yield
    http.delete("/v1/maintenance")


def made(http: httpx.Client, **policy: Any) -> str:
    """Make a job."""
    answer = http.post("/v1/jobs", json=BODY | {"vessel": policy})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    return str(answer.json()["id"])


def ended(http: httpx.Client, job_id: str) -> Any:
    """Wait for a job's end."""
    return http.get(f"/v1/jobs/{job_id}?wait=30").json()


def test_a_job_is_accepted_at_once_and_waited_for(http: httpx.Client) -> None:
    """202 with where to look; a long poll gives it whole, with Groq's answer."""
    job = ended(http, made(http, tier="power"))
    assert (job["state"], job["tier"]) == ("succeeded", "power")
    assert job["response"]["object"] == "chat.completion"
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["succeeded"]


@pytest.mark.usefixtures("held")
def test_a_long_poll_ends_with_its_time_and_says_why_the_job_waits(http: httpx.Client) -> None:
    """200 with the state as it is: waiting is no error."""
    job = http.get(f"/v1/jobs/{made(http)}?wait=0.2").json()
    assert job["state"] in {"queued", "parked"}
    assert job["waiting"]["why"] == "maintenance"


@pytest.mark.usefixtures("held")
def test_a_job_is_cancelled_once(http: httpx.Client) -> None:
    """Held ones at once, and again changes nothing; one that succeeded is a conflict."""
    job_id = made(http)
    assert wait_until(lambda: http.delete(f"/v1/jobs/{job_id}").json().get("state")) in {"cancelled", "cancelling"}
    wait_until(lambda: ended(http, job_id)["state"] == "cancelled")
    assert http.delete(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_an_ended_job_runs_again_as_a_new_one(http: httpx.Client) -> None:
    """With `retry_of`; the old one is unchanged."""
    old = ended(http, made(http))
    answer = http.post(f"/v1/jobs/{old['id']}/retry")
    new = ended(http, answer.json()["id"])
    assert (answer.status_code, new["retry_of"]) == (202, old["id"])
    assert ended(http, old["id"]) == old
    assert http.delete(f"/v1/jobs/{old['id']}").status_code == 409


def test_pages_hold_every_job_once_while_new_ones_come(http: httpx.Client) -> None:
    """By the cursor and by an id; filters narrow what is listed."""
    ids = [made(http, tags={"run": "pages"}) for _ in range(7)]
    for job_id in ids:
        ended(http, job_id)
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 3}
    for _ in range(3):
        page = http.get("/v1/jobs", params=query).json()
        seen += [job["id"] for job in page["data"]]
        query["after"] = page["next"]
        ended(http, made(http))
    assert seen[:7] == ids[::-1]
    assert len(set(seen)) == len(seen)
    by_id = http.get("/v1/jobs", params={"limit": 2, "after": ids[-1]}).json()
    assert [job["id"] for job in by_id["data"]] == [ids[-2], ids[-3]]
    assert http.get("/v1/jobs?state=failed&tier=power").json()["object"] == "list"


def test_a_page_is_full_however_many_jobs_others_have(served: Served, http: httpx.Client) -> None:
    """Each tenant's jobs have an index of their own, so that nobody else's are looked at."""
    ids = [made(http) for _ in range(3)]
    with served.inside() as (door, runner):
        others = {f"job_{number:032x}": 2**45 for number in range(5000)}
        runner.client.zadd(door.keys.index, others)
        runner.client.zadd(door.keys.own_index("another"), others)
        page = http.get("/v1/jobs", params={"limit": 3}).json()
        runner.client.zrem(door.keys.index, *others)
        runner.client.delete(door.keys.own_index("another"))
    assert [job["id"] for job in page["data"]] == ids[::-1]


def test_a_cursor_stays_where_it_is_among_jobs_of_one_millisecond(served: Served, http: httpx.Client) -> None:
    """Whatever is added beside or before it, and also when its own job has gone."""
    ids = sorted((made(http) for _ in range(6)), reverse=True)
    with served.inside() as (door, runner):
        own = door.keys.own_index("default")
        at = runner.client.zscore(own, ids[0]) or 0.0
        runner.client.zadd(own, dict.fromkeys(ids[1:], at + 9))
        first = http.get("/v1/jobs", params={"limit": 2}).json()
        runner.client.zadd(own, {ids[0]: at + 9})
        runner.client.zrem(own, first["data"][1]["id"])
        second = http.get("/v1/jobs", params={"limit": 3, "after": first["next"]}).json()
    assert [job["id"] for job in first["data"] + second["data"]] == ids[1:]
    assert http.get("/v1/jobs", params={"after": "1-2"}).status_code == 400


def test_events_are_followed_to_the_end_and_from_one_of_them_on(http: httpx.Client) -> None:
    """Server-sent events with ids that a reader can go on from."""
    job_id = made(http)
    with http.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = list(stream.iter_lines())
    told = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    assert [event["event"] for event in told] == ["created", "claimed", "started", "succeeded"]
    rest = http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": told[1]["id"]}).text
    assert rest.count("data: ") == 2


def test_many_long_polls_of_one_job_all_end_with_it(http: httpx.Client, served: Served) -> None:
    """Forty wait for one job; each gets it."""
    http.put("/v1/maintenance", json={})
    job_id = made(http)
    states: list[str] = []

    def poll() -> None:
        with served.http() as client:
            states.append(client.get(f"/v1/jobs/{job_id}?wait=30").json()["state"])

    threads = [threading.Thread(target=poll) for _ in range(40)]
    for thread in threads:
        thread.start()
    http.delete("/v1/maintenance")
    for thread in threads:
        thread.join(30)
    assert states == ["succeeded"] * 40


def test_usage_sums_what_was_called(http: httpx.Client) -> None:
    """Tokens and cost by model, tier, day and tag; the sums agree."""
    ended(http, made(http, tags={"team": "sums"}))
    found: Any = None
    for by in ("model", "tier", "day", "vessel", "tag"):
        found = http.get("/v1/usage", params={"by": by, "since": "1h"}).json()
        assert found["total"]["calls"] >= 1
        assert found["total"]["cost_usd"] > 0
        if by != "tag":
            assert sum(row["calls"] for row in found["data"]) == found["total"]["calls"]
    assert "team=sums" in {row["group"] for row in found["data"]}


def test_the_vessel_tells_how_it_is(http: httpx.Client) -> None:
    """Health has the seed's fields; limits, tiers and metrics name every tier and gate."""
    health = http.get("/health").json()
    assert health["status"] == "healthy"
    assert health["api_reachable"] is True
    assert health["models_available"] > 0
    assert set(health["workers"]) == {tier["name"] for tier in http.get("/v1/tiers").json()["data"]}
    assert http.get("/ready").json() == {"status": "ready"}
    limits = http.get("/v1/limits").json()
    assert {"rpm", "tpm"} <= {limit["name"] for model in limits["models"] for limit in model["limits"]}
    metrics = http.get("/metrics").text
    assert 'vessel_workers_live{tier="power"} 1.0' in metrics
    assert 'vessel_api_requests_total{method="GET",route="/health",status="200"}' in metrics


def test_maintenance_is_begun_shown_and_ended(http: httpx.Client) -> None:
    """For a tier or all, with a planned end; what is not a time or a tier is refused and changes nothing."""
    begun = http.put("/v1/maintenance", json={"tier": "power", "until": "2h", "reason": "keys rotate"}).json()
    assert [(one["tier"], one["reason"]) for one in begun["maintenance"]] == [("power", "keys rotate")]
    for bad in ({"tier": "powr"}, {"until": "yesterday"}, {"until": "2020-01-01"}, {"reason": "x" * 500}, {"tear": 1}):
        assert http.put("/v1/maintenance", json=bad).status_code == 400
    assert http.get("/v1/maintenance").json()["active"]
    assert not http.delete("/v1/maintenance?tier=power").json()["active"]


def test_both_prefixes_lead_to_the_same(http: httpx.Client) -> None:
    """Below `/openai/v1` is what is below `/v1`."""
    job_id = made(http)
    assert http.get(f"/openai/v1/jobs/{job_id}").json()["id"] == job_id
