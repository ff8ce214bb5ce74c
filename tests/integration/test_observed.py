"""What people look at, on a real vessel: nothing private anywhere, a login before Flower, one trace for a job."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.observed import KEY, LOGIN, TRACES, Observed, attributes
from tests.waiting import wait_until
from vessel.dispatch.app import make_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

PROMPT = "canary-prompt-7d1f"
SYSTEM = "canary-system-88aa"
TENANTS_KEY = re.compile(r"vsl_[0-9a-f]{16}_[A-Za-z0-9_-]{43}")
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """Serve, do work of every kind with canaries in it, and give what can be looked at then."""
    with Observed(tmp_path_factory.mktemp("observed")) as stack:
        stack.start_worker()
        stack.start_flower()
        stack.start_api()
        stack.key = str(stack.run_cli("keys", "create", "--note", "observed", "--admin")["key"])
        work(stack)
        yield stack


def work(stack: Observed) -> None:
    """Have jobs done and failed: by command line, by REST with a trace of its own, streamed, refused, in a batch."""
    stack.asked = stack.cli("query", PROMPT, "--system", SYSTEM, "--json")
    body = {"model": "auto", "messages": [{"role": "user", "content": f"{PROMPT} by REST"}], "temperature": 0.5}
    headers = {"authorization": f"Bearer {stack.key}", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    with stack.http(headers=headers) as client:
        stack.answer = client.post("/v1/chat/completions", json=body)
        assert stack.answer.status_code == 200, stack.answer.text
        client.post("/v1/chat/completions", json=body | {"stream": True}).raise_for_status()
        assert client.post("/v1/chat/completions", json=body | {"messages": PROMPT}).status_code == 400
        assert client.post("/v1/chat/completions", json=body | {"model": PROMPT}).status_code in {400, 404}
        assert client.get(f"/v1/jobs/{PROMPT}?q={PROMPT}").status_code == 404
        assert client.get("/v1/models", headers={"authorization": f"Bearer vsl_{PROMPT}"}).status_code == 401
        line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body})
        file = client.post("/v1/files", files={"file": ("f.jsonl", line)}, data={"purpose": "batch"}).json()
        batch = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch_id = client.post("/v1/batches", json=batch).json()["id"]
        wait_until(lambda: client.get(f"/v1/batches/{batch_id}").json()["status"] == "completed", 60)
        echo = {"error": {"message": f"you said: {PROMPT}", "type": "invalid_request_error"}}
        stack.ask("/_sim/faults", {"kind": "status", "status": 400, "count": 1, "body": echo})
        assert client.post("/v1/chat/completions", json=body).status_code == 400
        failed = client.post("/v1/jobs", json=body | {"vessel": {"deadline": 0.001}}).json()
        wait_until(lambda: client.get(f"/v1/jobs/{failed['id']}").json()["state"] in {"expired", "failed"})


class Links(HTMLParser):
    """The addresses a page leads to."""

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where a tag leads."""
        del tag
        self.found |= {value for name, value in attrs if name in {"href", "src"} and value and value.startswith("/")}


def walk(client: httpx.Client) -> dict[str, str]:
    """Read every page that Flower's own lead to, every task's, and every answer of its API."""
    tasks = client.get("/api/tasks").json()
    table = "/tasks/datatable?draw=1&start=0&length=100&order[0][column]=0&columns[0][data]=name&order[0][dir]=asc"
    open_ = ["/", "/workers?json=1", "/broker", table, "/metrics", "/api/tasks", "/api/workers", "/api/task/types"]
    open_ += ["/api/queues/length", *(f"/task/{name}" for name in tasks), *(f"/api/task/info/{name}" for name in tasks)]
    for worker in client.get("/api/workers?refresh=1").json():
        open_ += [f"/worker/{worker}", f"/api/workers?refresh=1&workername={worker}"]
    seen: dict[str, str] = {}
    while open_:
        path = open_.pop()
        answer = client.get(path)
        seen[path] = answer.text
        if "text/html" in answer.headers.get("content-type", ""):
            links = Links()
            links.feed(answer.text)
            open_ += [link for link in links.found if link not in seen and not link.startswith("/static")]
    return seen


def secrets_of(stack: Observed) -> list[str]:
    """Name what must be found nowhere: what was asked, answered, and what opens doors."""
    answer = stack.answer.json()["choices"][0]["message"]["content"]
    words = answer.split(" - ", 1)[-1]
    assert len(words) > 20, answer
    assert PROMPT in stack.asked.stdout
    return [PROMPT, SYSTEM, words[:20], KEY, stack.key, stack.key.rpartition("_")[2], LOGIN[1]]


def test_flower_tells_systemd_that_it_is_ready_and_that_its_loop_turns(observed: Observed) -> None:
    """Ready once it listens, where it does in its status line, and a sign of life again and again."""
    told = observed.told.heard
    assert told[:2] == ["READY=1", f"STATUS=listens on 127.0.0.1:{observed.flower_port}"]
    before = told.count("WATCHDOG=1")
    wait_until(lambda: told.count("WATCHDOG=1") > before + 1)


def test_canaries_are_nowhere(observed: Observed, redis_of: redis.Redis) -> None:
    """Prompt, answer and keys are in no page and no API of Flower, in no metric, log, trace, event or kept file."""
    places = dict(observed.logs())
    with observed.flower() as client:
        wait_until(lambda: len(client.get("/api/tasks").json()) >= 5)
        pages = walk(client)
    places |= pages
    with observed.http(headers={"authorization": f"Bearer {observed.key}"}) as client:
        places["metrics of the API"] = client.get("/metrics").text
    places["metrics of the worker"] = httpx.get(f"http://127.0.0.1:{observed.metrics_port}/metrics").text
    places["traces"] = "".join(body.decode("latin-1") for body in observed.receiver.bodies)
    queues = [redis_of.lrange(name, 0, -1) for name in redis_of.scan_iter("vessel:*") if redis_of.type(name) == b"list"]
    places["tickets"] = repr([*queues, redis_of.hgetall("vessel:unacked")])
    found = [(where, secret) for where, text in places.items() for secret in secrets_of(observed) if secret in text]
    assert found == []
    assert len(pages) > 15
    assert "vessel_tokens_total" in places["metrics of the API"]
    assert "request.served" in places["api.log"]
    if TRACES:
        assert "gen_ai.usage.input_tokens" in places["traces"]


@pytest.fixture
def redis_of(observed: Observed) -> Iterator[redis.Redis]:
    """Give a client of the vessel's Redis."""
    import redis  # noqa: PLC0415  only here

    with redis.Redis.from_url(observed.redis.url) as client:
        yield client


def test_flower_shows_id_tier_model_state_runtime_and_retries(observed: Observed) -> None:
    """A task's row names what a user looks for, readable as it stands."""
    job_id = json.loads(observed.asked.stdout.splitlines()[-1])["job_id"]
    with observed.flower() as client:
        task = wait_until(lambda: client.get(f"/api/task/info/{job_id}:0").json())
        page = client.get("/tasks").text
    assert task["name"] == "vessel.run_jobs"
    assert re.fullmatch(rf"{job_id}:0 \w+ [\w./-]+", task["args"])
    assert re.fullmatch(r"succeeded on [\w./-]+", task["result"])
    assert task["state"] == "SUCCESS"
    assert task["runtime"] > 0
    assert task["retries"] == 0
    assert all(f'data-column="{name}"' in page for name in ("name", "args", "state", "result", "runtime", "retries"))


@pytest.mark.parametrize(
    "path",
    ["/", "/tasks", "/metrics", "/api/tasks", "/api/workers", "/api/task/types", "/static/css/flower.css", "/nix"],
)
@pytest.mark.parametrize("login", [None, ("ann", "wrong"), ("ann", ""), ("bob", "othe")])
def test_without_the_login_flower_shows_nothing(observed: Observed, path: str, login: tuple[str, str] | None) -> None:
    """Every path but the health check asks for it, also those that Flower itself leaves open."""
    with observed.flower(login) as client:
        assert client.get(path).status_code == 401
        assert client.get("/healthcheck").text == "OK"


def test_flower_is_read_only_and_never_starts_tasks(observed: Observed) -> None:
    """Neither a page nor the API steers workers, and a task is started by nobody."""
    with observed.flower() as client:
        worker = next(iter(client.get("/api/workers?refresh=1").json()))
        for path in (f"/api/worker/shutdown/{worker}", f"/api/worker/pool/grow/{worker}", "/api/task/revoke/x"):
            assert client.post(path).status_code == 403
        for way in ("apply", "async-apply", "send-task"):
            assert client.post(f"/api/task/{way}/vessel.run_jobs", json={"args": [[]]}).status_code == 403
        assert "task-terminate" not in client.get("/tasks").text


def test_metrics_tell_what_was_done(observed: Observed) -> None:
    """Worker and API count the same work: attempts, tokens, cost, ends, requests by route."""
    worker = httpx.get(f"http://127.0.0.1:{observed.metrics_port}/metrics").text
    with observed.http(headers={"authorization": f"Bearer {observed.key}"}) as client:
        api = client.get("/metrics").text
        assert client.get("/metrics", headers={"authorization": "none"}).status_code == 401
    ledger = total(api, "vessel_ledger_calls_total", 'outcome="succeeded"')
    assert total(worker, "vessel_attempts_total", 'outcome="succeeded"') == ledger
    assert total(worker, "vessel_jobs_served_total", 'state="succeeded"') == ledger
    assert total(api, "vessel_tokens_total", 'kind="input"') > 0
    assert total(api, "vessel_cost_usd_total") > 0
    assert total(worker, "vessel_job_seconds_count") >= total(worker, "vessel_attempt_seconds_count")
    assert total(api, "vessel_api_requests_total", 'route="/v1/jobs/{job_id}",status="404"') == 1
    for name in ("vessel_limit_left_ratio", "vessel_queue_age_seconds", "vessel_breaker_state", "vessel_slots"):
        assert f"{name}{{" in api or f"{name} " in api
    assert total(api, "vessel_redis_up") == 1
    assert total(worker, "vessel_worker_heartbeat_age_seconds") < 30
    assert not re.search(r"(job|batch|file|req)_[0-9a-f]{8}", worker + api)


def total(text: str, name: str, labels: str = "") -> float:
    """Add the samples of a metric up."""
    lines = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} ")) and labels in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_logs_name_job_request_and_trace(observed: Observed) -> None:
    """A request's id leads from the API's log to the worker's, and so does its trace's, with tracing on or off."""
    request_id = observed.answer.headers["x-request-id"]
    lines: dict[str, list[dict[str, Any]]] = {}
    for name, text in observed.logs():
        lines[name] = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    served = [line for line in lines["worker1.log"] if line["event"] == "job.served"]
    (ours,) = [line for line in served if line.get("request_id") == request_id]
    assert ours["trace_id"] == TRACE
    assert any(line.get("batch_id", "").startswith("batch_") for line in served)
    (request,) = [line for line in lines["api.log"] if line.get("request_id") == request_id]
    assert (request["route"], request["status"], request["trace_id"]) == ("/v1/chat/completions", 200, TRACE)


def test_celery_can_ask_a_vessel_worker(observed: Observed) -> None:
    """Plain Celery's commands reach it: it answers, shows its pool, and what it runs."""
    app = make_app(observed.redis.url, namespace=observed.namespace, tiers=("power",))
    asking: Any = app.control.inspect(timeout=10, limit=1)
    assert list(asking.ping().values()) == [{"ok": "pong"}]
    (worker,) = asking.stats().values()
    assert worker["pool"]["implementation"] == "workers.pool:AsyncioPool"
    assert worker["total"]["vessel.run_jobs"] >= 5
    assert list(asking.active().values()) == [[]]
    assert "vessel.run_jobs" in next(iter(asking.registered().values()))


@pytest.mark.skipif(not TRACES, reason="the extra `otel` is not installed")
def test_one_trace_leads_from_rest_to_the_upstreams_answer(observed: Observed) -> None:
    """The caller's trace holds the request, the submission, the run and the call, each under the one before."""
    wait_until(lambda: len(of_trace(observed, bytes.fromhex(TRACE))) >= 8)
    spans = of_trace(observed, bytes.fromhex(TRACE))
    (request,) = [s for _, s in spans if attributes(s).get("vessel.request.id") == rest_id(observed) and s.kind == 2]
    submit = child(spans, request, "submit")
    run = child(spans, submit, "run")
    (call,) = [s for _, s in spans if s.parent_span_id == run.span_id]
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert request.name == "POST /v1/chat/completions"
    told = attributes(call)
    answer = observed.answer.json()
    assert call.name == f"chat {told['gen_ai.request.model']}"
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.provider.name"] == "groq"
    assert told["gen_ai.request.temperature"] == 0.5
    assert told["gen_ai.response.model"] == answer["model"]
    assert told["gen_ai.response.id"] == answer["id"]
    assert told["gen_ai.usage.input_tokens"] == answer["usage"]["prompt_tokens"]
    assert told["gen_ai.usage.output_tokens"] == answer["usage"]["completion_tokens"]
    assert attributes(run)["vessel.job.state"] == "succeeded"
    assert {service for service, _ in spans} == {"vessel-api", "vessel-worker"}


@pytest.mark.skipif(not TRACES, reason="the extra `otel` is not installed")
def test_one_trace_leads_from_the_client_to_the_upstreams_answer(observed: Observed) -> None:
    """A command's submission, the worker's run and its call are one trace of two services."""
    job_id = json.loads(observed.asked.stdout.splitlines()[-1])["job_id"]
    mine = [(n, s) for n, s in observed.receiver.spans() if attributes(s).get("vessel.job.id") == job_id]
    assert len({span.trace_id for _, span in mine}) == 1
    assert {(service, span.name.split()[0]) for service, span in mine} == {
        ("vessel-client", "submit"), ("vessel-worker", "run"), ("vessel-worker", "chat"),
    }  # fmt: skip


def rest_id(observed: Observed) -> str:
    """Return the id of the plain REST request."""
    return str(observed.answer.headers["x-request-id"])


def of_trace(observed: Observed, trace_id: bytes) -> list[tuple[str, Any]]:
    """List the spans of a trace."""
    return [(service, span) for service, span in observed.receiver.spans() if span.trace_id == trace_id]


def child(spans: list[tuple[str, Any]], parent: Any, name: str) -> Any:
    """Return the only child of a name."""
    (found,) = [s for _, s in spans if s.parent_span_id == parent.span_id and s.name == name]
    return found
