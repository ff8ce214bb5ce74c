"""The upstream against Vessel's own simulator, which shares no code with it: each fault becomes its outcome."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.waiting import wait_until
from vessel.registry import Feature, Model, load_registry
from vessel.upstream.groq import GroqUpstream
from vessel.upstream.keys import KeySource
from vessel.upstream.outcome import Charge, Failure, Outcome, Reason, Success
from vessel.upstream.translate import translate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODEL = "openai/gpt-oss-20b"
KEY = "gsk_of_the_test"


@contextmanager
def simulating(world: str, folder: Path) -> Iterator[str]:
    """Run one simulator without latency and give its address."""
    url_file = folder / "url"
    command = [sys.executable, "-m", "vessel.simulator", "--world", world, "--latency-ms", "0", "--key", KEY]
    process = subprocess.Popen([*command, "--url-file", str(url_file)], stderr=subprocess.DEVNULL)
    try:
        wait_until(url_file.exists)
        yield url_file.read_text()
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the simulator of today's models for this file."""
    with simulating("today", tmp_path_factory.mktemp("simulator")) as url:
        yield url


@pytest.fixture
def rules(simulator: str) -> Iterator[httpx.Client]:
    """Talk to the simulator's own side; it is reset before each test."""
    with httpx.Client(base_url=simulator) as client:
        assert client.post("/_sim/reset").is_success
        yield client


def complete(url: str, *, model: str = MODEL, key: str = KEY, deadline_s: float = 20, **fields: Any) -> Outcome:
    """Make one call."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_completion_tokens": 64, **fields}

    async def run() -> Outcome:
        upstream = GroqUpstream(KeySource(key), url)
        outcome = await upstream.call(model, body, deadline_s=deadline_s, attempt="att_7")
        await upstream.close()
        return outcome

    return asyncio.run(run())


def test_an_answer_agrees_with_the_simulators_own_log(simulator: str, rules: httpx.Client) -> None:
    """Tokens, request id and attempt are the same on both sides."""
    outcome = complete(simulator)
    assert isinstance(outcome, Success)
    [call] = rules.get("/_sim/calls").json()["calls"]
    assert (call["attempt"], call["request_id"]) == ("att_7", outcome.request_id)
    assert outcome.usage.prompt_tokens == json.loads(outcome.body)["usage"]["prompt_tokens"] > 0
    assert outcome.headers.limit_tokens is not None
    assert outcome.headers.reset_tokens_s is not None


@pytest.mark.parametrize(
    ("rule", "reason", "charge"),
    [
        ({"kind": "status", "status": 500}, Reason.SERVER_ERROR, Charge.NONE),
        ({"kind": "status", "status": 401}, Reason.UNAUTHORIZED, Charge.NONE),
        ({"kind": "status", "status": 403}, Reason.FORBIDDEN, Charge.NONE),
        ({"kind": "status", "status": 422}, Reason.UNPROCESSABLE, Charge.NONE),
        ({"kind": "status", "status": 424}, Reason.DEPENDENCY_FAILED, Charge.NONE),
        ({"kind": "status", "status": 429, "retry_after": 7}, Reason.RATE_LIMITED, Charge.NONE),
        ({"kind": "status", "status": 498}, Reason.OVER_CAPACITY, Charge.NONE),
        ({"kind": "html_status", "status": 502}, Reason.SERVER_ERROR, Charge.NONE),
        ({"kind": "model_decommissioned"}, Reason.MODEL_GONE, Charge.NONE),
        ({"kind": "over_capacity"}, Reason.OVER_CAPACITY, Charge.NONE),
        ({"kind": "blocked_api_access"}, Reason.SPEND_LIMIT, Charge.NONE),
        ({"kind": "tool_use_failed"}, Reason.TOOL_USE_FAILED, Charge.NONE),
        ({"kind": "json_validate_failed"}, Reason.JSON_VALIDATE_FAILED, Charge.NONE),
        ({"kind": "hang"}, Reason.TIMEOUT, Charge.UNKNOWN),
        ({"kind": "slow_drip"}, Reason.TIMEOUT, Charge.UNKNOWN),
        ({"kind": "reset_before_headers"}, Reason.CONNECTION_LOST, Charge.UNKNOWN),
        ({"kind": "reset_mid_body"}, Reason.CONNECTION_LOST, Charge.UNKNOWN),
        ({"kind": "truncated_json"}, Reason.PROTOCOL_ERROR, Charge.UNKNOWN),
        ({"kind": "html_200"}, Reason.PROTOCOL_ERROR, Charge.UNKNOWN),
        ({"kind": "missing_choices"}, Reason.PROTOCOL_ERROR, Charge.KNOWN),
        ({"kind": "empty_choices"}, Reason.PROTOCOL_ERROR, Charge.KNOWN),
        ({"kind": "error_object_200"}, Reason.PROTOCOL_ERROR, Charge.UNKNOWN),
        ({"kind": "missing_usage"}, Reason.PROTOCOL_ERROR, Charge.UNKNOWN),
        ({"kind": "negative_usage"}, Reason.PROTOCOL_ERROR, Charge.UNKNOWN),
        ({"kind": "huge_body"}, Reason.RESPONSE_TOO_LARGE, Charge.UNKNOWN),
    ],
    ids=lambda value: f"{value['kind']}-{value.get('status', '')}" if isinstance(value, dict) else str(value),
)
def test_every_fault_of_the_simulator_has_its_outcome(
    simulator: str, rules: httpx.Client, rule: dict[str, Any], reason: Reason, charge: Charge
) -> None:
    """One call is made, and what it may cost is what the simulator charges for at most."""
    assert rules.post("/_sim/faults", json=rule).is_success
    outcome = complete(simulator, deadline_s=2 if reason is Reason.TIMEOUT else 20)
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.charge) == (reason, charge)
    assert len(wait_until(lambda: rules.get("/_sim/calls").json()["calls"])) == 1


def test_an_answer_without_content_is_a_success(simulator: str, rules: httpx.Client) -> None:
    """Reasoning ate the budget; it is paid and told."""
    rules.post("/_sim/faults", json={"kind": "null_content_length"})
    outcome = complete(simulator)
    assert isinstance(outcome, Success)
    assert outcome.finish_reason == "length"


@pytest.mark.usefixtures("rules")
def test_a_dead_model_and_a_bad_key_are_told_apart(simulator: str) -> None:
    """One is the model's matter, the other everybody's."""
    gone, refused = complete(simulator, model="llama-3.1-8b-instant"), complete(simulator, key="gsk_other")
    assert isinstance(gone, Failure)
    assert isinstance(refused, Failure)
    assert (gone.reason, gone.detail, refused.reason) == (Reason.MODEL_GONE, "model_not_found", Reason.UNAUTHORIZED)


def test_the_limits_texts_of_the_simulator_are_read_exactly(simulator: str, rules: httpx.Client) -> None:
    """A 429 carries the wait of its bucket; a request above the limit carries none and never fits."""
    rules.post("/_sim/limits", json={"model": MODEL, "limits": {"rpm": 1000, "tpm": 400}})
    too_large = complete(simulator, max_completion_tokens=5000)
    assert isinstance(too_large, Failure)
    assert (too_large.reason, too_large.limit_name, too_large.limit_value) == (Reason.TOO_LARGE, "tpm", 400)
    assert too_large.retry_after_s is None
    rules.post("/_sim/limits", json={"model": MODEL, "limits": {"rpm": 1, "tpm": 10_000}})
    outcomes = [complete(simulator) for _ in range(2)]
    assert isinstance(outcomes[0], Success)
    limited = outcomes[1]
    assert isinstance(limited, Failure)
    assert (limited.reason, limited.limit_name, limited.limit_value) == (Reason.RATE_LIMITED, "rpm", 1)
    assert limited.retry_after_s is not None
    assert 0 < limited.retry_after_s <= 60


@pytest.mark.usefixtures("rules")
def test_the_simulators_models_are_listed(simulator: str) -> None:
    """With the fields beyond the SDK's model."""

    async def run() -> tuple[dict[str, Any], ...] | Failure:
        upstream = GroqUpstream(KeySource(KEY), simulator)
        listed = await upstream.list_models()
        await upstream.close()
        return listed

    listed = asyncio.run(run())
    assert isinstance(listed, tuple)
    assert MODEL in {entry["id"] for entry in listed}
    assert all("pricing" in entry for entry in listed if entry["id"] == MODEL)


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def wishes(model: Model) -> list[dict[str, Any]]:
    """Return bodies written for another model of the chain, as far as a router would let them come here."""
    bodies: list[dict[str, Any]] = [
        {"reasoning_effort": "none", "reasoning_format": "parsed", "max_tokens": 999_999},
        {"tools": [{"type": "browser_search"}], "tool_choice": "auto", "reasoning_effort": "high"},
        {"compound_custom": {"tools": {"enabled_tools": ["web_search"]}}, "search_settings": {"country": "Romania"}},
    ]
    if model.can(Feature.JSON_SCHEMA):
        form = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}
        bodies.append({"response_format": form, "reasoning_format": "hidden"})
    return bodies


@pytest.mark.parametrize("world", ["today", "seed"])
def test_translated_bodies_are_accepted_by_every_model_of_both_worlds(world: str, tmp_path: Path) -> None:
    """A hop never turns into a 400 by what another model of the chain would have understood."""

    async def run(url: str) -> dict[str, set[str]]:
        upstream = GroqUpstream(KeySource(KEY), url)
        listed = await upstream.list_models()
        assert isinstance(listed, tuple)
        served = {entry["id"] for entry in listed}
        refused: dict[str, set[str]] = {}
        for model in load_registry().routable():
            for wish in wishes(model) if model.id in served else []:
                body, _ = translate(
                    {"messages": [{"role": "user", "content": "hello"}], **wish},
                    model_id=model.id,
                    features=frozenset(str(feature) for feature in model.features),
                    reasoning_efforts=model.reasoning_efforts,
                    builtin_tools=("web_search", "code_execution") if "response_format" not in wish else (),
                    max_completion_tokens=64,
                )
                outcome = await upstream.call(model.id, body, deadline_s=20, attempt="att")
                if isinstance(outcome, Failure):
                    refused.setdefault(model.id, set()).add(outcome.message)
        await upstream.close()
        return refused

    with simulating(world, tmp_path) as url:
        assert asyncio.run(run(url)) == {}
