"""Every command against a running stack: what it prints for people, what for programs, and its exit code."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.running_up import Up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ERROR_KEYS = {"message", "type", "code", "param"}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Give a running stack."""
    with Up(tmp_path_factory.mktemp("up")) as running:
        yield running


@pytest.mark.parametrize("verb", ["query", "analyze", "research"])
def test_a_call_prints_the_answer_alone(up: Up, verb: str) -> None:
    """Standard output holds the answer and nothing else; in a pipe standard error is silent."""
    ran = up.vessel(verb, "Good morning, Oradea")
    assert ran.code == 0
    assert 'You asked: "Good morning, Oradea"' in ran.out
    assert ran.err == ""


def test_query_in_json_names_who_answered(up: Up) -> None:
    """The document holds text, model, tier, usage, exact cost and every attempt."""
    found = up.vessel("query", "Hi", "--tier", "power", "--json").document
    assert found["tier"] == "power"
    assert found["model"] == "openai/gpt-oss-120b"
    assert found["finish_reason"] == "stop"
    assert found["cost_usd"] > 0
    assert found["usage"]["prompt_tokens"] > 0
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["succeeded"]


@pytest.mark.parametrize("verb", ["query", "analyze", "code", "research"])
def test_an_answer_is_printed_as_it_comes(up: Up, verb: str) -> None:
    """The pieces are the answer; in JSON each has its line, and the last line is the whole result."""
    ran = up.vessel(verb, "Good evening, Oradea", "--stream")
    assert (ran.code, ran.err) == (0, "")
    assert 'You asked: "Good evening, Oradea"' in ran.out
    *pieces, whole = up.vessel(verb, "Good evening, Oradea", "--stream", "--json").documents
    assert "".join(line["piece"] for line in pieces) == whole["text"]
    assert {line["job_id"] for line in pieces} == {whole["job_id"]}


def test_code_in_json_holds_the_code(up: Up) -> None:
    """`code` is the answer without its fence."""
    assert "CSV" in up.vessel("code", "parse CSV", "--language", "python", "--json").document["code"]


def test_a_prompt_comes_from_standard_input(up: Up) -> None:
    """`-` reads it, unicode and newlines included."""
    assert "bună ziua 👋" in up.vessel("query", "-", stdin=["bună ziua 👋", "second line"]).out


def test_submitted_jobs_are_waited_for_by_their_ids(up: Up) -> None:
    """`submit` prints an id, `wait -` takes it, `job` shows the answer, `jobs` lists it, `events` tells its life."""
    job_id = up.vessel("submit", "Name a colour", "--priority", "batch").out.strip()
    assert up.vessel("wait", "-", "--timeout", "60", stdin=[job_id]).out.startswith(f"{job_id} succeeded")
    shown = up.vessel("job", job_id)
    assert "Name a colour" in shown.out
    assert "succeeded" in shown.out
    whole = up.vessel("job", job_id, "--json").document
    assert whole["state"] == "succeeded"
    assert whole["priority"] == "batch"
    assert "Name a colour" in whole["text"]
    assert job_id in {job["id"] for job in up.vessel("jobs", "--state", "succeeded", "--json").documents}
    nowhere = up.vessel("jobs", "--tier", "powr", "--json")
    assert (nowhere.code, "mean power?" in nowhere.document["error"]["message"]) == (2, True)
    assert job_id in up.vessel("jobs").out
    events = [event["event"] for event in up.vessel("events", job_id, "--follow", "--json").documents]
    assert events[0] == "created"
    assert events[-1] == "succeeded"


def test_one_key_is_one_job(up: Up) -> None:
    """The same key and text give the same job; another text under the key is a conflict, exit 2."""
    first = up.vessel("submit", "Once", "--key", "k1", "--json").document
    again = up.vessel("submit", "Once", "--key", "k1", "--json").document
    assert again["id"] == first["id"]
    assert (first["existing"], again["existing"]) == (False, True)
    other = up.vessel("submit", "Twice", "--key", "k1", "--json")
    assert other.code == 2
    assert other.document["error"]["code"] == "idempotency_key_reused"


def test_a_file_becomes_jobs_in_its_order(up: Up, tmp_path: Path) -> None:
    """Chat bodies, prompts and Groq batch lines mix; each id comes with its line and custom id."""
    body = {"messages": [{"role": "user", "content": "one"}]}
    rows = [
        {**body, "vessel": {"tier": "power"}},
        {"prompt": "two", "task_type": "coding"},
        {"custom_id": "c-3", "method": "POST", "url": "/v1/chat/completions", "body": body},
    ]
    file = tmp_path / "work.jsonl"
    file.write_text("\ufeff" + "\n\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    found = up.vessel("submit", "--file", str(file), "--priority", "batch", "--json").documents
    assert [(line["line"], line["custom_id"], line["tier"]) for line in found] == [
        (1, None, "power"), (3, None, "balanced"), (5, "c-3", "ultra_fast"),
    ]  # fmt: skip
    ids = [line["id"] for line in found]
    waited = up.vessel("wait", *ids, "--timeout", "60", "--json")
    assert waited.code == 0
    assert {line["job_id"] for line in waited.documents} == set(ids)
    assert {up.vessel("job", job_id, "--json").document["priority"] for job_id in ids} == {"batch"}


def test_a_faulty_file_is_not_sent_at_all(up: Up, tmp_path: Path) -> None:
    """Every faulty line is told by its number, nothing is submitted, exit 2."""
    file = tmp_path / "work.jsonl"
    file.write_text('{"prompt": "fine"}\nnot json\n{"prompt": 7}\n{"x": 1}\n{"prompt": "a", "tier": "nope"}\n')
    before = len(up.vessel("jobs", "--json", "--limit", "10000").documents)
    refused = up.vessel("submit", "--file", str(file), "--json")
    assert refused.code == 2
    assert refused.document["error"]["code"] == "bad_use"
    for number in (2, 3, 4, 5):
        assert f"line {number}:" in refused.err
    assert "line 1:" not in refused.err
    assert len(up.vessel("jobs", "--json", "--limit", "10000").documents) == before


def test_cancel_and_retry(up: Up) -> None:
    """An ended job cannot be cancelled (exit 1) and runs again as a new one."""
    job_id = up.vessel("query", "Ended", "--json").document["job_id"]
    late = up.vessel("cancel", job_id, "--json")
    assert late.code == 1
    assert late.document == {"id": job_id, "state": "succeeded", "cancelled": False}
    assert "had ended before (succeeded)" in up.vessel("cancel", job_id).out
    waits = up.vessel("submit", "Never", "--tier", "power", "--priority", "batch").out.strip()
    codes = [up.vessel("cancel", waits).code for _ in range(2)]
    assert codes[1] == 1
    again = up.vessel("retry", job_id, "--json").document
    assert again["retry_of"] == job_id
    assert up.vessel("wait", again["id"], "--timeout", "60").code == 0


def test_a_job_without_a_result_fails_the_wait(up: Up) -> None:
    """`wait` exits 1 and says how the job ended."""
    job_id = up.vessel("submit", "Too long for it", "--deadline", "1ms").out.strip()
    waited = up.vessel("wait", job_id, "--timeout", "60", "--json")
    assert waited.code == 1
    assert waited.document["state"] == "expired"
    assert set(waited.document["error"]) == ERROR_KEYS


def test_an_unknown_job_is_told(up: Up) -> None:
    """It exits 1 with one message and one document."""
    for command in (("job", "job_0"), ("cancel", "job_0"), ("retry", "job_0"), ("events", "job_0"), ("wait", "job_0")):
        ran = up.vessel(*command, "--json")
        assert ran.code == 1, command
        assert ran.document["error"]["code"] == "job_not_found"
        assert ran.document["error"]["type"] == "not_found_error"
        assert len(ran.err.splitlines()) == 1


def test_route_explains_and_submits_nothing(up: Up) -> None:
    """Tier, model, reasons, chain and cost are told; no job appears."""
    before = len(up.vessel("jobs", "--json", "--limit", "10000").documents)
    plan = up.vessel("route", "look it up", "--context", "requires_tools=true", "--json").document
    assert plan["tier"] == "compound"
    assert plan["as_listed"]
    assert plan["live_workers"] == 1
    assert plan["reasons"]
    assert plan["chain"][0] == {"model": plan["model"], "tier": "compound"}
    assert "compound" in up.vessel("route", "look it up", "--context", "requires_tools").out
    assert len(up.vessel("jobs", "--json", "--limit", "10000").documents) == before


def test_models_say_what_stands_in_for_what(up: Up) -> None:
    """A retired model names its successor, a served one says so."""
    found = {model["id"]: model for model in up.vessel("models", "--json").documents}
    assert found["openai/gpt-oss-20b"]["served"]
    assert found["llama-3.1-8b-instant"]["stand_in"] == "openai/gpt-oss-20b"
    assert "openai/gpt-oss-20b" in up.vessel("models").out


def test_models_are_refreshed_from_the_upstream(up: Up) -> None:
    """`--refresh` asks the upstream itself: the simulator of a running `up --sim` is found, what is set goes first."""
    assert up.vessel("models", "--refresh").code == 0
    simulator = up.await_event("simulator")["url"]
    up.env |= {"GROQ_API_KEY": "sim-test", "GROQ_BASE_URL": simulator}
    try:
        assert up.vessel("models", "--refresh").code == 0
    finally:
        del up.env["GROQ_API_KEY"], up.env["GROQ_BASE_URL"]


def test_a_wait_that_takes_too_long_leaves_the_job(up: Up) -> None:
    """A timeout exits 1 and names the job, which goes on."""
    ran = up.vessel("query", "<<tokens:4000>> slowly", "--timeout", "0.05", "--json")
    assert ran.code == 1
    assert ran.document["error"]["code"] == "wait_timeout"
    assert "job_" in ran.document["error"]["message"]
