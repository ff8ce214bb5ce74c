"""A request that comes again, and a client that leaves: one job each, and none for nobody."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.api.serving import BODY, GREETING
from tests.waiting import wait_until
from vessel.api.chat import NO_READER_S
from vessel.upstream.openai import HOP_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.api.serving import Served


@pytest.fixture
def held(served: Served) -> Iterator[Callable[[], None]]:
    """Hold all jobs until the test lets them go."""
    with served.http() as client:
        assert client.put("/v1/maintenance", json={"reason": "test"}).json()["active"]

        def let_go() -> None:
            client.delete("/v1/maintenance")

        yield let_go
        let_go()


def jobs(served: Served) -> list[Any]:
    """List the newest jobs."""
    with served.http() as client:
        found: list[Any] = client.get("/v1/jobs?limit=50").json()["data"]
        return found


def ids(served: Served) -> set[str]:
    """Name the newest jobs."""
    return {job["id"] for job in jobs(served)}


def calls_of(served: Served, job_id: str) -> int:
    """Count the upstream calls that were made for a job."""
    return sum(str(call["attempt"]).startswith(job_id) for call in served.ask("/_sim/calls")["calls"])


def said(text: str) -> Any:
    """Build messages of its own for a test."""
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("kind", ["openai", "groq"])
def test_an_sdks_own_repeat_attaches_to_the_first_job(served: Served, held: Callable[[], None], kind: str) -> None:
    """The SDK gives up waiting twice and posts again; there is one job, one call, and the answer is its."""
    before = ids(served)
    left, got = served.given_up(), list[Any]()

    def ask() -> None:
        with getattr(served, kind)(timeout=0.7, max_retries=6) as client:
            message = said(f"repeat {kind}")
            got.append(client.chat.completions.with_raw_response.create(model="auto", messages=message))

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: served.given_up() >= left + 2)
    held()
    thread.join(30)
    assert got[0].retries_taken >= 1
    (job_id,) = ids(served) - before
    # Not a difference of totals: a job of another test may be let go at the same moment.
    assert calls_of(served, job_id) == 1


def test_parallel_twins_are_two_jobs_and_so_are_later_ones(served: Served) -> None:
    """Only a repeat attaches: the same body posted anew is a new job."""
    with served.http() as client:
        first = client.post("/v1/chat/completions", json=BODY)
        again = client.post("/v1/chat/completions", json=BODY, headers={"x-stainless-retry-count": "0"})
        repeat = client.post("/v1/chat/completions", json=BODY, headers={"x-stainless-retry-count": "1"})
        other = client.post("/v1/chat/completions", json=BODY | {"seed": 1}, headers={"x-stainless-retry-count": "1"})
    made = [answer.headers["x-vessel-job-id"] for answer in (first, again, repeat, other)]
    assert len(set(made)) == 3
    assert made[2] == made[1]


def test_a_key_makes_a_body_one_job_and_another_body_a_conflict(served: Served) -> None:
    """The header and the policy's field are the same key; where both are given the header's counts."""
    headers = {"Idempotency-Key": "one-job"}
    with served.http() as client:
        first, second = (client.post("/v1/chat/completions", json=BODY, headers=headers) for _ in range(2))
        assert first.headers["x-vessel-job-id"] == second.headers["x-vessel-job-id"]
        assert first.content == second.content
        other = client.post("/v1/chat/completions", json=BODY | {"seed": 1}, headers=headers)
        assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
        both = client.post("/v1/jobs", json=BODY | {"vessel": {"idempotency_key": "b", "priority": "interactive"}},
                           headers=headers)  # fmt: skip
        assert both.json()["id"] == first.headers["x-vessel-job-id"]


@pytest.mark.usefixtures("held")
def test_a_job_that_nobody_waits_for_is_cancelled_unless_it_has_a_key(served: Served) -> None:
    """Ten seconds after its client left; one with an idempotency key goes on, as its client may ask again by it."""
    with served.http() as client:
        for key in ("", "kept"):
            body = BODY | {"messages": said(f"left {key}")}
            headers = {"Idempotency-Key": key} if key else {}
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/chat/completions", json=body, headers=headers, timeout=0.5)
    kept, left = jobs(served)[:2]
    wait_until(lambda: served.job(left["id"])["state"] == "cancelled", timeout=NO_READER_S + 20)
    assert served.job(kept["id"])["state"] in {"queued", "parked"}


def test_a_call_that_came_from_a_vessel_is_refused(served: Served) -> None:
    """A failover endpoint that leads to a Vessel would be a loop."""
    with served.http() as client:
        for path in ("/v1/chat/completions", "/v1/jobs"):
            answer = client.post(path, json=BODY, headers={HOP_HEADER: "1"})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, HOP_HEADER)


@pytest.mark.system
def test_a_wait_beyond_the_sdks_sixty_seconds_is_one_job(served: Served, held: Callable[[], None]) -> None:
    """With the SDK's own defaults: 60 s of silence, then its repeat, which gets the first job's answer."""
    before = ids(served)
    timer = threading.Timer(66, held)
    timer.start()
    with served.groq(max_retries=2) as client:
        raw = client.chat.completions.with_raw_response.create(model="auto", messages=GREETING)
    assert raw.retries_taken == 1
    assert len(ids(served) - before) == 1
