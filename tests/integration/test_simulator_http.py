"""The simulator as a process, seen through the groq SDK: what it answers, how it breaks, and what it logs of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import groq
import httpx
import pytest

from tests.simulated import GREETING, MODEL, ROOT, Process
from tests.waiting import wait_until
from vessel.simulator import expected_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Run one simulator for this file."""
    with Process(tmp_path_factory.mktemp("simulator")) as running:
        yield running


@pytest.fixture
def sim(process: Process) -> Process:
    """Give the simulator as it was at its start."""
    return process.fresh()


def test_the_sdk_reads_an_answer(sim: Process) -> None:
    """Content, usage, Groq's own fields, and headers, all through the SDK's types."""
    with sim.client() as sdk:
        raw = sdk.chat.completions.with_raw_response.create(model=MODEL, messages=GREETING)
    answer = raw.parse()
    assert answer.choices[0].message.content == expected_text(GREETING)
    assert answer.usage is not None
    assert answer.x_groq is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert (answer.x_groq.id, answer.service_tier) == (raw.headers["x-request-id"], "on_demand")
    assert raw.headers["server"] == "cloudflare"
    assert raw.headers["x-ratelimit-limit-tokens"] == "250000"
    call = sim.last_call()
    assert (call["request_id"], call["delivered"]) == (answer.x_groq.id, True)


def test_the_sdk_lists_and_finds_models(sim: Process) -> None:
    """Prices come as extra fields; an id with a slash is found."""
    with sim.client() as sdk:
        listed = {model.id: model for model in sdk.models.list().data}
        found = sdk.models.retrieve(MODEL)
    assert len(listed) == 11
    assert (found.id, (found.model_extra or {})["pricing"]["prompt"]) == (MODEL, "0.000000075")


def test_a_doubled_prefix_is_not_found(sim: Process) -> None:
    """The SDK adds /openai/v1 itself."""
    with (
        groq.Groq(api_key="gsk_test", base_url=f"{sim.url}/openai/v1", max_retries=0) as sdk,
        pytest.raises(groq.NotFoundError) as caught,
    ):
        sdk.models.list()
    assert "Unknown request URL: GET /openai/v1/openai/v1/models" in str(caught.value)


def test_both_worlds_are_served(tmp_path: Path, sim: Process) -> None:
    """What the seed's world serves is gone today."""
    with Process(tmp_path, "--world", "seed") as seed:
        assert seed.chat(model="llama-3.1-8b-instant").choices[0].message.content == expected_text(GREETING)
        assert seed.chat(model="groq/compound").usage_breakdown.models
    with pytest.raises(groq.NotFoundError):
        sim.chat(model="llama-3.1-8b-instant")


@pytest.mark.parametrize(
    ("rule", "error", "status"),
    [
        ({"kind": "status", "status": 500}, groq.InternalServerError, 500),
        ({"kind": "status", "status": 502}, groq.InternalServerError, 502),
        ({"kind": "status", "status": 504}, groq.InternalServerError, 504),
        ({"kind": "over_capacity"}, groq.InternalServerError, 503),
        ({"kind": "html_status", "status": 502}, groq.InternalServerError, 502),
        ({"kind": "rate_limit", "retry_after": 9}, groq.RateLimitError, 429),
        ({"kind": "status", "status": 401}, groq.AuthenticationError, 401),
        ({"kind": "network_block"}, groq.PermissionDeniedError, 403),
        ({"kind": "model_not_found"}, groq.NotFoundError, 404),
        ({"kind": "model_decommissioned"}, groq.BadRequestError, 400),
        ({"kind": "blocked_api_access"}, groq.BadRequestError, 400),
        ({"kind": "tool_use_failed"}, groq.BadRequestError, 400),
        ({"kind": "json_validate_failed"}, groq.BadRequestError, 400),
        ({"kind": "status", "status": 422}, groq.UnprocessableEntityError, 422),
        ({"kind": "status", "status": 424}, groq.APIStatusError, 424),
        ({"kind": "status", "status": 498}, groq.APIStatusError, 498),
        ({"kind": "status", "status": 413}, groq.APIStatusError, 413),
    ],
)
def test_each_refusal_is_its_exception(
    sim: Process, rule: dict[str, Any], error: type[groq.APIStatusError], status: int
) -> None:
    """The SDK's class and status; a body of HTML is text, one of JSON a table."""
    sim.fault(**rule)
    with pytest.raises(error) as caught:
        sim.chat()
    assert (type(caught.value), caught.value.status_code) == (error, status)
    assert isinstance(caught.value.body, str) is (rule["kind"] == "html_status")
    assert caught.value.response.headers.get("retry-after") == ("9" if status == 429 else None)
    assert (sim.last_call()["status"], sim.last_call()["completed"]) == (status, False)


@pytest.mark.parametrize(
    ("rule", "attempts"),
    [
        ({"kind": "status", "status": 503, "retry_after": 0.01}, 3),
        ({"kind": "rate_limit", "retry_after": 0.01}, 3),
        ({"kind": "status", "status": 498}, 1),
        ({"kind": "status", "status": 413}, 1),
        ({"kind": "status", "status": 424}, 1),
        ({"kind": "model_not_found"}, 1),
    ],
)
def test_the_log_counts_real_attempts(sim: Process, rule: dict[str, Any], attempts: int) -> None:
    """Retries hidden in the SDK are seen, numbered by its own header."""
    sim.fault(**rule)
    with pytest.raises(groq.APIStatusError):
        sim.chat(retries=2)
    assert [call["retry_count"] for call in sim.calls()] == list(range(attempts))
    assert sim.ask("stats")["by_retry_count"] == {str(number): 1 for number in range(attempts)}


def test_the_simulators_own_429_and_413(sim: Process) -> None:
    """Real limits refuse through the SDK too."""
    sim.ask("limits", {"model": MODEL, "tpm": 2000})
    with pytest.raises(groq.APIStatusError) as large:
        sim.chat(max_completion_tokens=5000)
    long: Any = [{"role": "user", "content": "<<tokens:900>>"}]
    assert sim.chat(messages=long, max_completion_tokens=1900).usage.completion_tokens == 900
    with pytest.raises(groq.RateLimitError) as late:
        sim.chat(messages=long, max_completion_tokens=1900)
    assert (type(large.value), large.value.status_code) == (groq.APIStatusError, 413)
    assert "retry-after" not in large.value.response.headers
    assert int(late.value.response.headers["retry-after"]) >= 1
    assert "Rate limit reached for model" in str(late.value)


def test_a_hang_is_a_timeout(sim: Process) -> None:
    """No byte comes; when the client leaves, the log says that it did, and that nothing was computed."""
    sim.fault(kind="hang")
    with pytest.raises(groq.APITimeoutError):
        sim.chat(timeout=0.3)
    call = sim.last_call()
    assert (call["status"], call["reason"], call["completed"]) == (499, "hang", False)


@pytest.mark.parametrize("kind", ["reset_on_arrival", "reset_before_headers"])
def test_a_reset_before_headers_is_a_connection_error(sim: Process, kind: str) -> None:
    """One of the two comes after the model has computed, and is billed."""
    sim.fault(kind=kind)
    with pytest.raises(groq.APIConnectionError) as caught:
        sim.chat()
    assert isinstance(caught.value.__cause__, httpx.ReadError)
    call = sim.last_call()
    assert (call["completed"], call["delivered"]) == (kind == "reset_before_headers", False)


@pytest.mark.parametrize(
    ("kind", "error"), [("reset_mid_body", httpx.ReadError), ("early_fin", httpx.RemoteProtocolError)]
)
def test_a_body_cut_off_is_httpxs_error(sim: Process, kind: str, error: type[Exception]) -> None:
    """The SDK reads a whole body before it returns, so it still wraps what breaks; the cause is httpx's."""
    sim.fault(kind=kind)
    with pytest.raises(groq.APIConnectionError) as caught:
        sim.chat()
    assert isinstance(caught.value.__cause__, error)
    call = sim.last_call()
    assert (call["status"], call["completed"], call["delivered"]) == (200, True, False)


def test_truncated_json_is_a_decode_error(sim: Process) -> None:
    """The SDK lets the parser's own error through."""
    sim.fault(kind="truncated_json")
    with pytest.raises(json.JSONDecodeError):
        sim.chat()
    assert (sim.last_call()["completed"], sim.last_call()["delivered"]) == (True, False)


def test_html_with_200_comes_back_as_text(sim: Process) -> None:
    """No exception: create() returns a str."""
    sim.fault(kind="html_200")
    assert isinstance(sim.chat(), str)


@pytest.mark.parametrize("kind", ["missing_choices", "error_object_200"])
def test_missing_fields_come_back_as_none(sim: Process, kind: str) -> None:
    """No exception either: the object is full of None."""
    sim.fault(kind=kind)
    assert sim.chat().choices is None


def test_odd_answers_come_back_as_they_are(sim: Process) -> None:
    """Empty choices, no usage, negative usage, no content: all of them are answers to the SDK."""
    for kind in ("empty_choices", "missing_usage", "negative_usage", "null_content_length"):
        sim.fault(kind=kind, count=1)
    empty, unused, negative, null = (sim.chat() for _ in range(4))
    assert (empty.choices, unused.usage, negative.usage.prompt_tokens) == ([], None, -1)
    assert (null.choices[0].message.content, null.choices[0].finish_reason) == (None, "length")


def test_a_slow_drip_outlives_a_read_timeout(sim: Process) -> None:
    """Each gap is shorter than the timeout, so the whole is longer than it and still arrives."""
    sim.fault(kind="slow_drip", bytes=200, delay_s=0.15)
    assert sim.chat(timeout=0.4).choices[0].message.content == expected_text(GREETING)
    call = sim.last_call()
    assert call["delivered"]
    assert call["finished_at"] - call["started_at"] > 0.4


def test_a_huge_body_arrives(sim: Process) -> None:
    """Megabytes come whole."""
    sim.fault(kind="huge_body", bytes=5_000_000)
    assert len(sim.chat().choices[0].message.content) == 5_000_000
    assert sim.last_call()["delivered"]


@pytest.mark.parametrize(
    ("mode", "error"),
    [("503", groq.InternalServerError), ("hang", groq.APITimeoutError), ("refuse_reset", groq.APIConnectionError)],
)
def test_an_outage_takes_everything_but_its_own_side(sim: Process, mode: str, error: type[Exception]) -> None:
    """Chats and lists fail alike, and come back."""
    sim.ask("outage", {"mode": mode})
    with pytest.raises(error):
        sim.chat(timeout=0.3)
    with sim.client(timeout=0.3) as sdk, pytest.raises(error):
        sdk.models.list()
    sim.ask("outage", {"mode": "off"})
    assert sim.chat().choices


def test_a_vanished_client_is_computed_and_not_delivered(sim: Process) -> None:
    """A caller that dies is billed all the same: the log says completed, and delivered to nobody."""
    sim.ask("latency", {"ms": 400})
    program = (
        "import groq,sys; groq.Groq(api_key='gsk_x', base_url=sys.argv[1]).chat.completions.create("
        f"model={MODEL!r}, messages=[{{'role':'user','content':'hello'}}])"
    )
    caller = subprocess.Popen([sys.executable, "-c", program, sim.url], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: sim.ask("stats")["in_flight"] == 1)
    finally:
        caller.kill()
        caller.wait()
    call = sim.last_call()
    assert (call["status"], call["completed"], call["delivered"]) == (200, True, False)
    stats = sim.ask("stats")
    assert (stats["completed"], stats["delivered"], stats["undelivered"]) == (1, 0, 1)
    assert stats["tokens"]["total"] > stats["delivered_tokens"]["total"] == 0


def test_a_body_that_never_ends_is_a_client_that_left(sim: Process) -> None:
    """Half a request computes nothing."""
    split = urlsplit(sim.url)
    with socket.create_connection((str(split.hostname), int(split.port or 0))) as raw:
        raw.sendall(
            b"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer gsk_x\r\n"
            b"content-length: 100\r\n\r\n{"
        )
        wait_until(lambda: sim.ask("stats")["in_flight"] == 1)
    assert (sim.last_call()["status"], sim.last_call()["reason"]) == (499, "client_left")


def test_sigterm_ends_it_quietly(tmp_path: Path) -> None:
    """Exit code 0, nothing said but the address, the log on disk, even with a call hanging."""
    log = tmp_path / "calls.jsonl"
    with Process(tmp_path, "--log", str(log), "--port", "0", "--plan", "free", "--seed", "5") as running:
        running.chat()
        running.ask("outage", {"mode": "hang"})
        split = urlsplit(running.url)
        with socket.create_connection((str(split.hostname), int(split.port or 0))) as raw:
            raw.sendall(b"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            wait_until(lambda: running.ask("stats")["in_flight"] == 1)
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(10) == 0
    assert running.errors.read_text() == f"Groq simulator (today, free) on {running.url}\n"
    first = json.loads(log.read_text().splitlines()[0])
    assert (first["status"], first["delivered"], first["seq"]) == (200, True, 1)


def test_listed_keys_are_the_only_ones(tmp_path: Path) -> None:
    """--key restricts who may call."""
    with Process(tmp_path, "--key", "gsk_one", "--key", "org_two:gsk_two") as running:
        for key in ("gsk_one", "gsk_two"):
            with running.client(key=key) as sdk:
                assert sdk.models.list().data
        with running.client(key="gsk_three") as sdk, pytest.raises(groq.AuthenticationError):
            sdk.models.list()


@pytest.mark.parametrize("arguments", [["--scenario", "nowhere.toml"], ["--latency-scale", "-1"]])
def test_a_bad_start_says_why(tmp_path: Path, arguments: list[str]) -> None:
    """Exit code 2 and one line for people."""
    command = [sys.executable, "-m", "vessel.simulator", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"HOME": str(tmp_path)}
    )
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
