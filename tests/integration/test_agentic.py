"""Research and execution against real workers and the simulator, where Compound is served and where it is not."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from groq_vessel import AsyncGroqClient, GroqClient, GroqCompound, JobFailed, Result

from tests.api.serving import Served
from tests.waiting import wait_until
from vessel.errors import CostCapTooSmall, UnsupportedContent
from vessel.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

OSS, OSS20, COMPOUND, MINI = "openai/gpt-oss-120b", "openai/gpt-oss-20b", "groq/compound", "groq/compound-mini"
FIRST = {"seed": COMPOUND, "today": OSS}
SEARCHED = {"seed": ["search"], "today": ["browser.search"]}


@pytest.fixture(scope="module", params=["seed", "today"])
def vessel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run a worker for all tiers and the API against the models of a time."""
    with Served(tmp_path_factory.mktemp(request.param), world=request.param) as running:
        running.start_worker()
        running.start_api()
        yield running


@pytest.fixture
def client(vessel: Served) -> Iterator[GroqClient]:
    """Open a client on it."""
    with GroqClient(settings=vessel.settings(), timeout=60) as opened:
        yield opened


def kinds(result: Result) -> list[str]:
    """Name what ran."""
    return [str(tool.get("name") or tool["type"]) for tool in result.executed_tools]


def last_entry(vessel: Served, job_id: str) -> dict[str, Any]:
    """Read a job's line of the usage log, once it is written."""
    log = vessel.folder / "data" / "usage_log.jsonl"

    def found() -> list[dict[str, Any]]:
        lines = log.read_text("utf-8").splitlines() if log.exists() else []
        return [json.loads(line, parse_float=Decimal) for line in lines if job_id in line]

    return wait_until(found, timeout=30)[-1]


def test_research_names_its_sources_and_what_they_cost(vessel: Served, client: GroqClient) -> None:
    """Whoever serves, the sources are there, at most so many as asked for, and the fee is in cost, ledger and log."""
    result = GroqCompound(client=client).research(query="EU funding", tools=["web_search"], max_results=2)
    assert (result.model, result.tier, kinds(result)) == (FIRST[vessel.world], "compound", SEARCHED[vessel.world])
    assert [source.url for source in result.sources] == [
        "https://example.org/simulated/1", "https://example.com/simulated/2",
    ]  # fmt: skip
    assert result.sources[0].title
    assert (result.tool_cost_usd, result.cost_estimated) == (Decimal("0.005"), True)
    row = last_entry(vessel, result.job_id)
    assert row["cost_usd"] == result.cost_usd > Decimal("0.005")
    assert (row["tools"], row["tool_cost_usd"], row["estimated"]) == ({"web_search": 1}, Decimal("0.005"), True)
    assert {"timestamp", "model", "tokens", "cost_usd", "vessel"} <= row.keys()
    assert ("models" in row) is (vessel.world == "seed")
    usage = vessel.job(result.job_id)["usage"]
    assert (usage["tools"], usage["tool_cost_usd"]) == ({"web_search": 1}, "0.005000000")


def test_a_systems_tokens_cost_what_the_models_behind_it_do(vessel: Served, client: GroqClient) -> None:
    """In the seed's world the breakdown is priced model by model; the sum is exact."""
    if vessel.world != "seed":
        pytest.skip("no system is served")
    result = client.research("Price me")
    parts = result.raw["usage_breakdown"]["models"]
    prices = {part["model"]: load_registry().model(part["model"]).prices for part in parts}
    exact = sum(
        part["usage"]["prompt_tokens"] * prices[part["model"]].input
        + part["usage"]["completion_tokens"] * prices[part["model"]].output
        for part in parts
    )
    assert result.cost_usd - result.tool_cost_usd == exact / 10**6


def test_execution_runs_code(vessel: Served, client: GroqClient) -> None:
    """The code goes along with the task, and what ran is told."""
    result = client.execute(task="Run it", code="print(6 * 7)", tools=["code_execution"])
    assert result.model == FIRST[vessel.world]
    assert kinds(result) == ["python"]
    assert "42" in result.executed_tools[0]["output"]
    assert result.sources == []


@pytest.mark.parametrize(
    ("how", "sources", "tools"),
    [("results", 3, True), ("output", 1, True), ("annotations", 3, False), ("none", 0, False)],
)
@pytest.mark.parametrize("stream", [False, True])
def test_whatever_an_answer_tells_of_its_tools_it_is_an_answer(
    vessel: Served, client: GroqClient, how: str, sources: int, *, tools: bool, stream: bool
) -> None:
    """Results, mere output with citation marks, annotations, or nothing at all: whole and streamed alike."""
    prompt = f"Tell <<report:{how}>>"
    if stream:
        with client.stream(prompt, builtin_tools=["web_search"]) as pieces:
            text = "".join(pieces)
        result = pieces.whole
        assert text == result.text
    else:
        result = client.research(prompt)
    assert prompt in result.text
    assert "†" not in result.text
    if how == "output" and vessel.world == "today":
        assert "【0†L1-L3】" in result.raw["choices"][0]["message"]["content"]
        assert kinds(result) == ["browser.search", "browser.open"]
    assert bool(result.executed_tools) is tools
    # A system tells its results always in fields.
    assert len(result.sources) == (3 if vessel.world == "seed" and how == "output" else sources)


def test_coroutines_and_the_command_line_research_too(vessel: Served) -> None:
    """The same tools and bounds at each face."""

    async def ask() -> Result:
        async with AsyncGroqClient(settings=vessel.settings(), timeout=60) as client:
            return await client.research("from a coroutine", tools=["web_search"], max_results=1)

    assert len(asyncio.run(ask()).sources) == 1
    found = vessel.run_cli("research", "from a shell", "--tool", "web_search", "--tool", "code_execution")
    assert [tool.get("name") or tool["type"] for tool in found["executed_tools"]] == [*SEARCHED[vessel.world], "python"]
    assert (len(found["sources"]), found["cost_estimated"], found["sources"][0]["score"]) == (3, True, 0.85)


@pytest.mark.parametrize("wish", [{"model": COMPOUND}, {"tier": "compound"}, {"model": "compound_mini"}])
def test_a_plain_request_for_compound_has_all_tools(vessel: Served, client: GroqClient, wish: dict[str, Any]) -> None:
    """Named by id or tier, at every door: submit, REST and the lines of a batch."""
    submitted = client.submit("plain", **wish).result(timeout=60)
    first = {"model": COMPOUND} if "tier" in wish else wish
    with vessel.groq() as groq:
        answered = groq.chat.completions.create(messages=[{"role": "user", "content": "plain"}], **first)
    body = {"messages": [{"role": "user", "content": "plain"}], **first}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    batch = client.submit_batch([line])
    batch.wait(timeout=60)
    [row] = batch.results()
    ran = [len(submitted.executed_tools), len(answered.choices[0].message.executed_tools or []),
           len((row.response or {})["choices"][0]["message"]["executed_tools"])]  # fmt: skip
    mini = wish.get("model") == "compound_mini" and vessel.world == "seed"
    assert ran == [1 if mini else 2] * 3


def test_batch_lines_name_their_tools(vessel: Served, client: GroqClient) -> None:
    """Each line has its own tools in its own words, and its own price."""
    bodies: list[dict[str, Any]] = [
        {"prompt": "one", "builtin_tools": ["web_search"]},
        {"messages": [{"role": "user", "content": "two"}], "tools": [{"type": "code_interpreter"}]},
        {"messages": [{"role": "user", "content": "three"}], "vessel": {"tier": "power"}},
    ]
    estimate = client.estimate_batch(bodies)
    assert estimate.worst_cost_usd > Decimal("0.086" if vessel.world == "seed" else "0.031") > estimate.typical_cost_usd
    results = {r.text.split('"')[1]: r for r in client.wait(client.submit_many(bodies)) if isinstance(r, Result)}
    assert {name: kinds(result) for name, result in results.items()} == {
        "one": SEARCHED[vessel.world], "two": ["python"], "three": [],
    }  # fmt: skip
    assert results["three"].tool_cost_usd == 0 < results["one"].tool_cost_usd


def test_what_cannot_go_together_is_refused_before_anything_is_sent(client: GroqClient) -> None:
    """A schema beside tools, a tool that nobody has, a model without any: each says what to do instead."""
    with pytest.raises(UnsupportedContent, match="two steps"):
        client.research("x", response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {}}})
    with pytest.raises(UnsupportedContent, match="web_search"):
        client.research("x", model="openai/gpt-oss-safeguard-20b")


def test_a_cap_leaves_room_for_the_fees(vessel: Served, client: GroqClient) -> None:
    """A cap that tokens would fit and tools may not is refused; one with room is kept."""
    with pytest.raises(CostCapTooSmall, match="with web_search"):
        client.research("cheap", max_cost_usd="0.004", fallback="none")
    result = client.research("dear", max_cost_usd="0.2")
    assert result.cost_usd < Decimal("0.2")
    worst = client.route("dear", builtin_tools=["web_search"]).worst_cost_usd
    assert worst > (Decimal("0.08") if vessel.world == "seed" else Decimal("0.025"))


def test_a_job_goes_on_with_tools_when_compound_is_retired_while_it_waits(vessel: Served, client: GroqClient) -> None:
    """It was routed to Compound, and is translated again for each model it comes to."""
    if vessel.world != "seed":
        pytest.skip("no system is served")
    with vessel.http() as http:
        http.put("/v1/maintenance", json={"tier": "compound"}).raise_for_status()
    handles = [client.submit(f"late {n}", task_type="research", builtin_tools=["web_search"]) for n in range(3)]
    assert {handle.model for handle in handles} == {COMPOUND}
    vessel.ask("/_sim/models", {"remove": [COMPOUND, MINI]})
    try:
        with vessel.http() as http:
            http.delete("/v1/maintenance").raise_for_status()
        results = [handle.result(timeout=60) for handle in handles]
        assert {result.model for result in results} <= {OSS, OSS20}  # the successors of Compound and of its mini
        assert [kinds(result) for result in results] == [["browser.search"]] * 3
        assert all(len(result.sources) == 3 for result in results)
        assert any(attempt.reason == "model_gone" for result in results for attempt in result.attempts)
        with pytest.raises((UnsupportedContent, JobFailed), match="has nothing like wolfram_alpha"):
            client.research("nobody has it", tools=["wolfram_alpha"])
    finally:
        vessel.ask("/_sim/models", {"add": [COMPOUND, MINI]})
        assert vessel.cli("models", "--refresh").returncode == 0
        # The worker reads the list anew in its own time.
        wait_until(lambda: client.query("Are you back?", tier="compound").model == COMPOUND, timeout=60)
