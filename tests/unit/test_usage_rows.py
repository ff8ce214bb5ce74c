"""The rows a call leaves: priced once, never torn from their job, and marked where they are guesses."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from vessel.gate.limiter import NOTHING, GiveBack
from vessel.gate.limiter import Charge as GateCharge
from vessel.jobs.model import Hop, Job
from vessel.jobs.steps import UNKNOWN
from vessel.registry import load_registry
from vessel.upstream.outcome import Charge, Failure, Reason, Success, Usage
from vessel.usage.rows import Call, attempt_row, bill_of, counts, ending, unknown_row, usage_of
from vessel.wire import JobState, Priority

MODEL = load_registry().model("openai/gpt-oss-120b")
GATE = GateCharge(MODEL.id, "org", (30, 0, 8000, 0, 0, 0), 100, 50, 45_000)


def call(**policy: Any) -> Call:
    """Build the second call of a job, charged with 100 + 50 tokens."""
    job = Job(
        id="job_1", state=JobState.RUNNING, generation=1, tenant="acme", priority=Priority.NORMAL, tier="power",
        model=MODEL.id, hops=(Hop(MODEL.id, "power"),), hop=0, policy=policy, reasons=(), created_at=0, updated_at=0,
        estimated_tokens=100, prompt_bytes=0,
    )  # fmt: skip
    return Call(job, 2, MODEL, "power", "w1", 100, 50, 45_000, GATE)


def success(**more: Any) -> Success:
    """Build an answer of 80 prompt tokens, 20 of them cached, and 10 tokens of output."""
    return Success(MODEL.id, b"{}", Usage(80, 10, cached_tokens=20), "req_1", "stop", duration_ms=7, **more)


def failure(reason: Reason, charge: Charge = Charge.NONE, usage: Usage | None = None) -> Failure:
    """Build a failure."""
    return Failure(MODEL.id, reason, "It failed.", status=500, charge=charge, usage=usage)


def given_back(outcome: Success | Failure) -> GiveBack:
    """Say what goes back into the gate."""
    return ending(call(), outcome, counted=True).back


def test_a_success_is_booked_at_its_exact_price() -> None:
    """The ledger has the exact decimal as a number, the attempt whole nano-USD; both name the request."""
    end = ending(call(), success(), counted=True)
    row, attempt = json.loads(end.ledger_row, parse_float=Decimal), json.loads(end.row)

    assert row["cost_usd"] == Decimal("0.0000165")
    assert attempt["cost_nano_usd"] == 16_500
    assert row["tokens"] == {"input": 80, "output": 10, "cached": 20}
    assert (row["job_id"], row["attempt"], row["request_id"], row["tier"]) == ("job_1", 2, "req_1", "power")
    assert (end.label, "estimated" in row) == ("succeeded", False)


def test_fees_of_tools_are_added_and_marked_as_estimated() -> None:
    """A tool's fee comes from a price list and not from the answer; the entry names what ran and what it cost."""
    priced = replace(call(tags={"a": "@FEES@"}), registry=load_registry())
    done = success(tools=(("web_search", 2), ("code_execution", 1), ("visit_website", 3)))
    end = ending(priced, done, counted=True)
    row = json.loads(end.ledger_row, parse_float=Decimal)

    assert row["tool_cost_usd"] == Decimal("0.01") + Decimal("0.003") + Decimal("0.00000035")  # 7 ms at 0.18 an hour
    assert row["cost_usd"] == row["tool_cost_usd"] + Decimal("0.0000165")
    assert (row["tools"], row["estimated"]) == ({"web_search": 2, "code_execution": 1, "visit_website": 3}, True)
    assert row["tags"] == {"a": "@FEES@"}
    assert json.loads(end.row)["cost_nano_usd"] == 13_016_850
    usage = usage_of(done, bill_of(priced, done))
    assert (usage["total_tokens"], usage["tool_cost_usd"], usage["cost_estimated"]) == (90, "0.013000350", True)


def test_a_systems_answer_costs_what_the_models_behind_it_do() -> None:
    """Parts are priced by model, exactly where all are known; what the breakdown leaves out at the system's price."""
    registry = load_registry()
    model = registry.model("groq/compound")
    priced = replace(call(), model=model, registry=registry)
    parts = (("openai/gpt-oss-120b", Usage(60, 5)), ("meta-llama/llama-4-scout-17b-16e-instruct", Usage(20, 5)))
    row = json.loads(ending(priced, success(parts=parts), counted=True).ledger_row, parse_float=Decimal)

    exact = Decimal("0.000001") * (
        60 * Decimal("0.15") + 5 * Decimal("0.6") + 20 * Decimal("0.11") + 5 * Decimal("0.34")
    )
    assert (row["cost_usd"], "estimated" in row) == (exact, False)
    assert [part["model"] for part in row["models"]] == [name for name, _ in parts]
    unknown = bill_of(priced, success(parts=(parts[0], ("who/knows", Usage(20, 5)))))
    assert unknown.estimated
    assert unknown.usd > exact
    short = bill_of(priced, success(parts=parts[:1]))
    assert (short.estimated, short.usd) == (True, unknown.usd)
    assert bill_of(priced, success()).estimated


def test_a_call_without_an_answer_is_booked_at_its_worst_case() -> None:
    """What may be billed counts as billed, marked as a guess, in the ledger and against the cap alike."""
    end = ending(call(), failure(Reason.TIMEOUT, Charge.UNKNOWN), counted=True)

    assert (end.label, end.ledger_row, end.back) == (UNKNOWN, unknown_row(call()), NOTHING)
    assert json.loads(end.row)["cost_nano_usd"] == json.loads(attempt_row(call()))["worst_nano_usd"] == 45_000
    assert json.loads(end.ledger_row, parse_float=Decimal)["cost_usd"] == Decimal("0.000045")


def test_a_failure_with_usage_is_booked_as_failed() -> None:
    """A model that answered something unusable is paid for all the same."""
    end = ending(call(), failure(Reason.PROTOCOL_ERROR, Charge.KNOWN, Usage(80, 10)), counted=True)

    assert end.label == "failed"
    assert json.loads(end.ledger_row)["tokens"]["output"] == 10


def test_a_failure_that_costs_nothing_is_no_entry() -> None:
    """Its label says why it failed; the ledger does not hear of it."""
    end = ending(call(), failure(Reason.RATE_LIMITED), counted=False)

    assert (end.label, end.ledger_row) == ("rate_limited", "")
    assert json.loads(end.row) | {"counted": False, "cost_nano_usd": 0, "reason": "rate_limited"} == json.loads(end.row)


@pytest.mark.parametrize(
    ("outcome", "back"),
    [
        (success(), GiveBack(0, 40, 40, 45_000 - 16_500)),
        (failure(Reason.RATE_LIMITED), GiveBack(1, 100, 50, 45_000)),
        (failure(Reason.SERVER_ERROR), GiveBack(0, 100, 50, 45_000)),
        (failure(Reason.PROTOCOL_ERROR, Charge.KNOWN, Usage(80, 10)), GiveBack(0, 20, 40, 45_000 - 18_000)),
        (failure(Reason.TIMEOUT, Charge.UNKNOWN), NOTHING),
    ],
)
def test_what_was_not_used_goes_back(outcome: Success | Failure, back: GiveBack) -> None:
    """Cached tokens and unused output come back; a refused request does as well, one that ran does not."""
    assert given_back(outcome) == back


def test_tags_and_their_text_do_not_disturb_the_row() -> None:
    """A tag may hold the mark that stands for the cost, quotes and any script."""
    tags = {"a": "@COST@", "b": 'quote " and \\', "c": "Grüße"}
    row = json.loads(ending(call(tags=tags), success(), counted=True).ledger_row)

    assert row["tags"] == tags
    assert row["cost_usd"] == pytest.approx(0.0000165)


def test_what_was_put_otherwise_for_a_model_is_in_its_row() -> None:
    """Whoever looks at the job sees that a fallback model was asked differently; no note, no field."""
    told = json.loads(attempt_row(replace(call(), notes=("reasoning_effort: high was sent as medium.",))))

    assert told["notes"] == ["reasoning_effort: high was sent as medium."]
    assert "notes" not in json.loads(attempt_row(call()))


def test_only_what_the_job_is_to_blame_for_counts() -> None:
    """Quota, outages and keys leave `max_attempts` alone."""
    uncounted = {Reason.RATE_LIMITED, Reason.MODEL_GONE, Reason.OVER_CAPACITY, Reason.CONNECT_FAILED,
                 Reason.UNAUTHORIZED, Reason.NO_KEY, Reason.FORBIDDEN, Reason.SPEND_LIMIT, Reason.MAINTENANCE,
                 Reason.BREAKER_OPEN, Reason.OVER_BUDGET}  # fmt: skip

    assert counts(success())
    assert {reason for reason in Reason if not counts(failure(reason))} == uncounted
