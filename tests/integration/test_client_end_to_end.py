"""The seed's snippets as they stand, through a real worker to the simulator, in the seed's world and in today's."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from groq_vessel import AsyncGroqClient, GroqClient, JobFailed, NoWorkers, Result

from bench.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator

SNIPPETS = {
    "3.1": """
from groq_vessel import GroqClient

groq = GroqClient()

# Fast strategic analysis
response = groq.analyze(
    prompt="Analyze the viability of Portal Oradea MVP revenue path",
    task_type="strategic_analysis",  # Routes to gpt-oss-120b
    speed_priority="balanced"
)
""",
    "3.2": """
from groq_vessel import GroqClient

groq = GroqClient()

# Fast technical query
response = groq.query(
    prompt="What are best practices for systemd service hardening?",
    task_type="technical_qa",  # Routes to llama-3.3-70b-versatile
    speed_priority="fast"
)
""",
    "3.3": """
from groq_vessel import GroqClient

groq = GroqClient()

# Ultra-fast code generation
response = groq.generate_code(
    prompt="Write a Python function to validate JSON schema",
    language="python",  # Routes to llama-3.3-70b-versatile
    speed_priority="maximum"  # May override to gpt-oss-20b for speed
)
""",
    "3.4 research": """
from groq_vessel import GroqCompound

compound = GroqCompound()

# Research with built-in web search
response = compound.research(
    query="Latest EU funding opportunities for agricultural innovation",
    tools=["web_search"],
    max_results=10
)
""",
    "3.4 execute": """
from groq_vessel import GroqCompound

compound = GroqCompound()

# Code execution for validation
response = compound.execute(
    task="Test this regex pattern against sample data",
    code="import re; ...",
    tools=["code_execution"]
)
""",
    "C query": """
from groq_vessel import query
response = query("What is the Lion's Sanctuary?")
""",
    "C analyze": """
from groq_vessel import analyze
response = analyze("Evaluate Portal Oradea revenue potential")
""",
    "C code": """
from groq_vessel import generate_code
response = generate_code("Python function to parse CSV", language="python")
""",
    "C research": """
from groq_vessel import research
response = research("EU agricultural funding 2025", tools=["web_search"])
""",
}
SEED_MODELS = {
    "3.1": "openai/gpt-oss-120b",
    "3.2": "llama-3.3-70b-versatile",
    "3.3": "openai/gpt-oss-20b",
    "3.4 research": "groq/compound",
    "3.4 execute": "groq/compound",
    "C query": "llama-3.1-8b-instant",
    "C analyze": "openai/gpt-oss-120b",
    "C code": "llama-3.3-70b-versatile",
    "C research": "groq/compound",
}
TIERS = {
    "3.1": "power",
    "3.2": "balanced",
    "3.3": "speed_demon",
    "3.4 research": "compound",
    "3.4 execute": "compound",
    "C query": "ultra_fast",
    "C analyze": "power",
    "C code": "balanced",
    "C research": "compound",
}
TODAY_MODELS = {"3.3": "openai/gpt-oss-20b", "C query": "openai/gpt-oss-20b"}
TELL = """
import json
import signal
print(json.dumps({"model": response.model, "tier": response.tier, "text": str(response),
    "cost": float(response.cost_usd), "sources": [source.url for source in response.sources],
    "tools": [tool["type"] for tool in response.executed_tools]}))
"""


@pytest.fixture(scope="module", params=["seed", "today"])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run one worker for all tiers against the models of a time."""
    folder = tmp_path_factory.mktemp(request.param)
    with Stack(folder, world=request.param, simulator=["--latency-ms", "1"]) as running:
        running.start_worker()
        yield running


@pytest.mark.parametrize("name", SNIPPETS)
def test_a_snippet_of_the_seed_runs_as_it_stands(stack: Stack, name: str) -> None:
    """Stage 3 and appendix C, word for word, with nothing set but the environment."""
    command = (sys.executable, "-W", "error", "-c", SNIPPETS[name] + TELL)
    done = subprocess.run(command, check=False, env=stack.environment(), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    models = SEED_MODELS if stack.world == "seed" else TODAY_MODELS
    assert answer["model"] == models.get(name, "openai/gpt-oss-120b")
    assert answer["tier"] == TIERS[name]
    assert answer["text"]
    assert answer["cost"] > 0
    if "research" in name:
        assert answer["sources"]
    if TIERS[name] == "compound":
        assert answer["tools"]


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
