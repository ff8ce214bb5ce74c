"""The seed's snippets as they stand, through a real worker to the simulator, in the seed's world and in today's."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import traceback
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from groq_vessel import (
    AsyncGroqClient,
    GroqClient,
    InvalidAnswer,
    InvalidRequest,
    JobFailed,
    NoWorkers,
    Result,
)
from pydantic import BaseModel, Field

from bench.stack import Stack
from vessel.usage.log import entries as ledger_entries

if TYPE_CHECKING:
    from collections.abc import Iterator

SNIPPETS = re.findall(
    r"^### (3\.\d|C)[^\n]*\n.*?```python\n(.*?)```",
    Path(__file__).with_name("seed_snippets.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
SEED = {
    "3.1": [("power", "openai/gpt-oss-120b")],
    "3.2": [("balanced", "llama-3.3-70b-versatile")],
    "3.3": [("speed_demon", "openai/gpt-oss-20b")],
    "3.4": [("compound", "groq/compound"), ("compound", "groq/compound")],
    "C": [
        ("ultra_fast", "llama-3.1-8b-instant"),
        ("power", "openai/gpt-oss-120b"),
        ("balanced", "llama-3.3-70b-versatile"),
        ("compound", "groq/compound"),
    ],
}
"""Tier and model of each answer, as the seed's matrix and its comments say."""

TODAY = {
    "llama-3.1-8b-instant": "openai/gpt-oss-20b",
    "llama-3.3-70b-versatile": "openai/gpt-oss-120b",
    "groq/compound": "openai/gpt-oss-120b",
}
"""Who answers for the models that are retired."""

RUN = """
import ast, json, sys
from groq_vessel import CodeResult, Result
names = {}
for node in ast.parse(sys.argv[1]).body:
    exec(compile(ast.Module([node], []), "seed", "exec"), names)
    found = names[node.targets[0].id] if isinstance(node, ast.Assign) else None
    if isinstance(found, Result):
        print(json.dumps({"model": found.model, "tier": found.tier, "text": str(found), "cost": float(found.cost_usd),
            "code": getattr(found, "code", None), "sources": len(found.sources), "tools": len(found.executed_tools)}))
"""


@pytest.fixture(scope="module", params=["seed", "today"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run one worker for all tiers against the models of a time."""
    folder = tmp_path_factory.mktemp(request.param)
    with Stack(folder, world=request.param, simulator=["--latency-ms", "1"]) as running:
        running.start_worker()
        yield running


@pytest.mark.parametrize(("name", "snippet"), SNIPPETS, ids=[name for name, _ in SNIPPETS])
def test_a_snippet_of_the_seed_runs_as_it_stands(stack: Stack, name: str, snippet: str) -> None:
    """Stage 3 and appendix C, word for word, with nothing set but the environment; each answer is where it belongs."""
    command = (sys.executable, "-W", "error", "-c", RUN, snippet)
    done = subprocess.run(command, check=False, env=stack.environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    served = {} if stack.world == "seed" else TODAY
    wanted = [(tier, served.get(model, model)) for tier, model in SEED[name]]
    assert [(answer["tier"], answer["model"]) for answer in answers] == wanted
    for answer in answers:
        assert answer["text"]
        assert answer["cost"] > 0
        assert answer["code"] is None or answer["code"] in answer["text"]
        if answer["tier"] == "compound":
            assert answer["tools"]
    if name in {"3.4", "C"}:
        assert any(answer["sources"] for answer in answers)


def test_the_blocks_of_the_guide_run_one_after_the_other(stack: Stack) -> None:
    """docs/client.md cannot lie."""
    if stack.world != "today":
        pytest.skip("once is enough")
    guide = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL))
    command = (sys.executable, "-W", "error", "-c", program)
    done = subprocess.run(command, check=False, env=stack.environment(), capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Question 19" in done.stdout


def test_every_snippet_of_the_seed_is_run() -> None:
    """None of the seed's blocks is left out."""
    assert [name for name, _ in SNIPPETS] == list(SEED)


NEVER = "canary 4711 <<unfit:9>>"


class Invoice(BaseModel):
    """What is to be read out of a text."""

    number: str
    total: Annotated[int, Field(ge=1000, description="in cents")]
    due: date
    paid: bool
    note: str | None = None


def test_an_answer_is_a_value_by_a_strict_schema_where_the_model_has_it(stack: Stack) -> None:
    """gpt-oss is asked for the schema itself, and the text is read."""
    with GroqClient(settings=stack.settings()) as client:
        result = client.query("Read this invoice", tier="power", response_model=Invoice, timeout=30)
        asked = client.job(result.job_id).request()["response_format"]
    assert result.parsed.total >= 1000
    assert json.loads(result.text)["number"] == result.parsed.number
    assert (asked["json_schema"]["strict"], result.repairs, result.model) == (True, (), "openai/gpt-oss-120b")


def test_an_answer_is_a_value_by_json_mode_where_the_model_has_no_schema(stack: Stack) -> None:
    """A named model without schemas is told the schema in words; a choice left open goes to one that has them."""
    with GroqClient(settings=stack.settings()) as client:
        named = client.query("Read this invoice", tier="balanced", response_model=list[Invoice], timeout=30)
        asked = client.job(named.job_id).request()["response_format"]["type"]
        left_open = client.query("Read it", task_type="coding", response_model=Invoice, timeout=30)
        if stack.world == "seed":
            with pytest.raises(InvalidRequest, match="JSON schema"):
                client.query("Read it", tier="balanced", response_format=client.job(left_open.job_id).request()[
                    "response_format"], timeout=30)  # fmt: skip
    assert [type(one) for one in named.parsed] == [Invoice]
    expected = ("llama-3.3-70b-versatile", "json_object") if stack.world == "seed" else (
        "openai/gpt-oss-120b", "json_schema")  # fmt: skip
    assert (named.model, asked) == expected
    assert left_open.model == ("openai/gpt-oss-20b" if stack.world == "seed" else "openai/gpt-oss-120b")
    assert isinstance(left_open.parsed, Invoice)


@pytest.mark.parametrize("tier", ["balanced", "power"])
def test_an_answer_that_does_not_fit_is_repaired_and_paid_for(stack: Stack, tier: str) -> None:
    """Each repair is a job of its own, seen in the result and in the ledger."""
    with GroqClient(settings=stack.settings()) as client:
        prompt = f"Read this for {tier} <<unfit:2>>"
        result = client.query(prompt, tier=tier, response_model=Invoice, timeout=60)
        assert [client.state(answer.job_id) for answer in result.repairs] == ["succeeded", "succeeded"]
        assert result.total_cost_usd == sum(a.cost_usd for a in (*result.repairs, result)) > result.cost_usd > 0
        rows = client.runner.run(ledger_entries(client.door.keys.ledger, "", 1000))
        booked = {entry["job_id"]: entry for entry in (json.loads(fields["row"]) for _, fields in rows)}
        again = client.result(result.repairs[0].job_id, timeout=60, response_model=Invoice)
    answers = [*result.repairs, result]
    assert [Decimal(str(booked[a.job_id]["cost_usd"])) for a in answers] == [a.cost_usd for a in answers]
    assert [booked[a.job_id].get("tags") for a in answers] == [None, *[{"repair_of": answers[0].job_id}] * 2]
    assert (again.job_id, again.parsed) == (result.job_id, result.parsed)


def test_an_answer_that_never_fits_is_a_failure_without_content(stack: Stack) -> None:
    """After two repairs the error names the job, the places and nothing of the answer."""
    with GroqClient(settings=stack.settings()) as client, pytest.raises(InvalidAnswer) as failed:
        client.query(NEVER, tier="power", response_model=Invoice, timeout=60)
    error = failed.value
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(error.result)
    assert len(error.repairs) == 2
    assert error.job_id == error.result.job_id
    assert len(error.attempts) == 3
    assert "number: missing" in error.faults
    assert "unfit" in error.result.text
    assert "unfit" not in told
    assert "4711" not in told


def test_values_come_to_handles_and_coroutines_alike(stack: Stack) -> None:
    """`submit` keeps the type for `result` and `wait`, in threads and on a loop."""

    async def ask() -> list[Any]:
        async with AsyncGroqClient(settings=stack.settings()) as client:
            handle = await client.submit("One <<unfit:1>>", tier="power", response_model=Invoice)
            one = await client.query("Two", tier="power", response_model=Invoice, timeout=60)
            return [(await handle.result(timeout=60)).parsed, one.parsed]

    with GroqClient(settings=stack.settings()) as client:
        handles = [client.submit(f"{n} <<unfit:{n}>>", tier="power", response_model=Invoice) for n in (0, 1, 3)]
        plain = client.submit("no value", tier="power")
        ended = {end.job_id: end for end in client.wait([*handles, plain], timeout=60)}
        values = [end.parsed for end in ended.values() if isinstance(end, Result)]
    assert {type(value) for value in asyncio.run(ask())} == {Invoice}
    assert sorted(type(value).__name__ for value in values) == ["Invoice", "Invoice", "NoneType"]
    assert [type(end) for end in ended.values() if isinstance(end, JobFailed)] == [InvalidAnswer]


def test_the_raw_bytes_are_what_groq_sent(stack: Stack) -> None:
    """A result keeps the response as it came, with its own ids and its usage."""
    with GroqClient(settings=stack.settings()) as client:
        result = client.query("Keep this", tier="power", timeout=30)
    assert json.loads(result.raw_bytes) == result.raw
    assert result.raw["object"] == "chat.completion"
    assert result.raw["usage"]["total_tokens"] == result.usage.total_tokens
    assert result.attempts[0].request_id


def test_many_jobs_of_coroutines_and_threads_meet_one_worker(stack: Stack) -> None:
    """Both clients share the queues, and each gets its own answers."""

    async def ask() -> list[str]:
        async with AsyncGroqClient(settings=stack.settings()) as client:
            asked = (client.query(f"Coroutine {n}?", tier="speed_demon", timeout=60) for n in range(20))
            return [result.text for result in await asyncio.gather(*asked)]

    with GroqClient(settings=stack.settings()) as client:
        handles = client.submit_many({"prompt": f"Line {n}?", "tier": "power"} for n in range(20))
        texts = asyncio.run(ask())
        ended = {result.job_id: result for result in client.wait(handles, timeout=60)}
    assert all(f"Coroutine {n}?" in text for n, text in enumerate(texts))
    for number, handle in enumerate(handles):
        result = ended[handle.id]
        assert isinstance(result, Result)
        assert f"Line {number}?" in result.text


def test_a_failure_tells_every_attempt(stack: Stack) -> None:
    """What the upstream refused is told with its status, and without the prompt."""
    stack.ask("/_sim/faults", {"kind": "status", "status": 400, "match": "refuse me 8812"})
    with GroqClient(settings=stack.settings()) as client, pytest.raises(JobFailed) as failed:
        client.query("refuse me 8812", tier="power", timeout=30)
    stack.ask("/_sim/faults", method="DELETE")
    assert [(attempt.status, attempt.reason) for attempt in failed.value.attempts] == [(400, "bad_request")]
    assert "8812" not in str(failed.value)


def test_when_the_last_worker_has_left_query_says_so(stack: Stack) -> None:
    """A worker that was asked to stop is gone at once, and the next query does not wait for anybody."""
    for worker in list(stack.workers):
        assert stack.kill(worker, how=signal.SIGTERM) == 0
        stack.workers.remove(worker)
    with GroqClient(settings=stack.settings()) as client:
        before = len(client.jobs(limit=1000))
        with pytest.raises(NoWorkers):
            client.query("Anybody?", timeout=30)
        assert len(client.jobs(limit=1000)) == before
    stack.start_worker()
