"""The demonstration's judge: it sees a wrong answer, a missing line and a wrong cent."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from vessel.cli.demo.panel import Seen
from vessel.cli.demo.report import reroutes_of, shares_of
from vessel.cli.demo.verify import Booked, is_right, read_usage, verify
from vessel.cli.demo.work import Done, read_batch
from vessel.client import JobFailed, Result
from vessel.client.request import compose_line
from vessel.jobs.model import Hop, Job
from vessel.simulator import expected_text
from vessel.wire import JobState, Priority, TaskType

if TYPE_CHECKING:
    from pathlib import Path

BODY = {"messages": [{"role": "user", "content": "Hello"}]}
BOOKED = Booked(2, 2, 10, 20, 0, Decimal("0.001"))
SEEN = Seen(2, 1, 10, 20, 0, Decimal("0.001"))


def _result(text: str, model: str = "openai/gpt-oss-120b", finish: str = "stop") -> Result:
    response = {"choices": [{"message": {"content": text}, "finish_reason": finish}]}
    job = Job(
        id="job_1",
        state=JobState.SUCCEEDED,
        generation=1,
        tenant="default",
        priority=Priority.NORMAL,
        tier="power",
        model=model,
        hops=(Hop(model, "power"),),
        hop=0,
        policy={},
        reasons=(),
        created_at=0,
        updated_at=0,
        estimated_tokens=1,
        prompt_bytes=1,
        response=json.dumps(response).encode(),
        served_model=model,
    )
    return Result(job)


def _done(asked: str = "qwen/qwen3.8-27b", text: str | None = None, **fields: Any) -> Done:
    right = expected_text(BODY["messages"])
    steps = [("requeued", "rate_limited"), ("parked", "rate_limited")]
    done = Done("line 1", BODY, "job_1", asked, "balanced", _result(right if text is None else text), steps=steps)
    return replace(done, **fields)


def test_everything_right_holds() -> None:
    """Nothing is found where nothing is wrong."""
    assert [check.name for check in verify([_done()], [_done(asked="x")], BOOKED, SEEN) if not check.ok] == []


@pytest.mark.parametrize(
    ("batch", "booked", "seen", "found"),
    [
        ([_done(text="other")], BOOKED, SEEN, {"answers"}),
        ([_done(ended=None)], BOOKED, SEEN, {"results", "answers", "dead_model"}),
        ([_done(ended=JobFailed("job_1", "failed", "r", "m"))], BOOKED, SEEN, {"results", "answers", "dead_model"}),
        ([_done(ended=_result(expected_text(BODY["messages"]), "qwen/qwen3.8-27b"))], BOOKED, SEEN, {"dead_model"}),
        ([_done()], replace(BOOKED, lines=3), SEEN, {"usage_log", "calls"}),
        ([_done()], replace(BOOKED, jobs=1), SEEN, {"usage_log"}),
        ([_done()], replace(BOOKED, cached=1), SEEN, {"tokens"}),
        ([_done()], replace(BOOKED, cost_usd=Decimal("0.001000001")), SEEN, {"cost"}),
        ([_done()], BOOKED, replace(SEEN, refused=0), {"storm"}),
    ],
)
def test_what_is_wrong_is_found(batch: list[Done], booked: Booked, seen: Seen, found: set[str]) -> None:
    """Each fault is seen by its own check."""
    checks = verify(batch, [_done(asked="x")], booked, seen)
    assert {check.name for check in checks if not check.ok} == found


def test_a_cut_answer_is_right_as_far_as_it_goes() -> None:
    """A budget may end an answer early; an empty one is never right."""
    whole = expected_text(BODY["messages"])
    assert is_right(_done(ended=_result(whole[:30], finish="length")))
    assert not is_right(_done(ended=_result(whole[:30])))
    assert not is_right(_done(ended=_result("", finish="length")))


def test_amounts_are_added_exactly(tmp_path: Path) -> None:
    """No float comes between the usage log and the check."""
    row = '{"job_id":"%s","tokens":{"input":1,"output":2,"cached":0},"cost_usd":0.1}\n'
    path = tmp_path / "u"
    path.write_text(row % "a" + row % "b" + row % "b")
    assert read_usage(path) == Booked(3, 2, 3, 6, 0, Decimal("0.3"))
    path.write_text((row % "a").replace("0.1}", '0.1,"tool_cost_usd":0.03}'))
    assert read_usage(path).tokens_usd == Decimal("0.07")


def test_reroutes_are_grouped_with_their_reason() -> None:
    """Jobs that the asked model answered are none."""
    assert [(r.jobs, r.asked, r.why) for r in reroutes_of([_done(), _done(), _done(asked="openai/gpt-oss-120b")])] == [
        (2, "qwen/qwen3.8-27b", "rate_limited")
    ]
    assert shares_of([_done(), _done()])[0].jobs == 2


def test_the_shipped_batch_is_varied() -> None:
    """It holds every task type but the default, all priorities, tools, JSON, unicode and the three line formats."""
    batch = read_batch("batch.jsonl")
    asks = [compose_line(line) for line in batch]
    assert {ask.policy.get("task_type") for ask in asks} >= set(TaskType)
    assert {ask.policy.get("priority", "normal") for ask in asks} == set(Priority)
    fields = {name for ask in asks for name in ask.body}
    assert {"tools", "response_format", "temperature", "reasoning_effort", "model"} <= fields
    assert {kind for line in batch for kind in ("messages", "prompt", "body") if kind in line} == {
        "messages", "prompt", "body",
    }  # fmt: skip
    assert not json.dumps(batch, ensure_ascii=False).isascii()


def test_the_live_batch_stays_below_its_cap() -> None:
    """Six lines whose worst cases, with the interactive calls', add up to less than 0.05 USD."""
    asks = [compose_line(line) for line in read_batch("live.jsonl")]
    assert len(asks) == 6
    assert sum(Decimal(ask.policy["max_cost_usd"]) for ask in asks) + 2 * Decimal("0.005") < Decimal("0.05")
