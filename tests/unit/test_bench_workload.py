"""The pure parts of the benchmarks of the gate: their workload, bounds and figures."""

from __future__ import annotations

import statistics
import tomllib
from typing import Any

import pytest

from bench.outage import recovery_s, span
from bench.priority import rate
from bench.quota import after_learning, beside_foreign, goals, judged, median_of
from bench.rig import Done, failed, makespan_s, registry_text
from bench.workload import (
    LEAST_OUTPUT,
    MAX_OUTPUT,
    MEAN_OUTPUT,
    MEAN_PROMPT,
    MODEL,
    Quota,
    bound_s,
    busiest,
    drained_at,
    quantile,
    refused,
    requests,
    share,
    used_tokens,
)
from vessel.gate.tokens import estimate_tokens
from vessel.simulator.answers import answer_text, digest
from vessel.simulator.tokens import count_prompt, count_text

QUOTA = Quota(rpm=60, tpm=6000)


def call(at: float, tokens: int = 100, *, status: int = 200, took_s: float = 0.0, **more: Any) -> dict[str, Any]:
    """Build a line of the upstream's log."""
    good = status == 200
    return {"started_at": at, "finished_at": at + took_s, "prompt_tokens": tokens, "completion_tokens": 0,
            "status": status, "completed": good, "accepted": good, "user": None, "reason": ""} | more  # fmt: skip


def test_the_workload_is_repeatable_heavy_tailed_and_of_the_wanted_size() -> None:
    """The same seed gives the same requests; the means are as wanted and the largest far from them."""
    work = requests(4000)
    assert requests(4000) == work
    assert requests(10, seed=2) != work[:10]
    assert statistics.mean(r.prompt_tokens for r in work) == pytest.approx(MEAN_PROMPT, rel=0.1)
    assert statistics.mean(r.output_tokens for r in work) == pytest.approx(MEAN_OUTPUT, rel=0.1)
    assert max(r.prompt_tokens for r in work) > 6 * MEAN_PROMPT
    assert all(LEAST_OUTPUT <= r.output_tokens <= MAX_OUTPUT for r in work)
    assert len({r.prompt for r in work}) == len(work)


def test_the_simulator_counts_the_tokens_that_the_workload_names() -> None:
    """Prompt and answer are of the size drawn, and Vessel's estimate is not below the prompt."""
    for request in requests(50):
        body = request.body()
        assert count_prompt(body) == request.prompt_tokens
        text = answer_text(body["messages"], digest(body["messages"]), None)
        assert count_text(text) == request.output_tokens
        assert request.prompt_tokens <= estimate_tokens(body["messages"]) <= request.prompt_tokens + 120


@pytest.mark.parametrize(
    ("count", "tokens", "seconds"),
    [(10, 6000, 0.0), (10, 9000, 30.0), (120, 6000, 60.0), (120, 18_000, 120.0)],
)
def test_the_bound_is_what_full_buckets_leave_over_the_refill(count: int, tokens: int, seconds: float) -> None:
    """A full bucket is free; the limit that binds decides."""
    assert bound_s(QUOTA, count, tokens) == seconds


def test_only_completed_calls_count_as_used_and_only_429s_as_refused() -> None:
    """A refused call used nothing."""
    calls = [call(0), call(1, status=429), call(2, status=503)]
    assert used_tokens(calls) == 100
    assert refused(calls) == 1


def test_a_bucket_is_drained_when_real_use_outran_the_refill() -> None:
    """What is reserved and not used does not count, refill does; without load it is never drained."""
    assert drained_at([call(t, 500) for t in range(0, 100, 10)], 6000) is None
    assert drained_at([call(t, 1100) for t in range(20)], 6000) == 5
    assert drained_at([call(0, 6000, status=503)], 6000) is None


@pytest.mark.parametrize(("part", "value"), [(0.5, 2.0), (0.95, 4.0), (0.25, 1.0), (1.0, 4.0)])
def test_quantiles_are_nearest_ranks(part: float, value: float) -> None:
    """The value at or below which that part lies."""
    assert quantile([4.0, 2.0, 1.0, 3.0], part) == value


def test_nothing_divides_to_nothing() -> None:
    """Empty runs have figures too."""
    assert quantile([], 0.5) == 0.0
    assert share(1, 0) == 0.0
    assert busiest([], 5) == 0
    assert span([]) == (0.0, 0.0)


def test_the_busiest_span_is_half_open() -> None:
    """Two probes exactly five seconds apart are not in one span of five."""
    assert busiest([0.0, 5.0, 10.0], 5) == 1
    assert busiest([0.0, 4.9, 9.0, 9.5], 5) == 3


def test_a_run_is_judged_by_the_tokens_really_used() -> None:
    """12,000 tokens of 6,000 a minute need one minute after the full bucket."""
    run = judged("vessel", [call(t) for t in range(120)] + [call(5, status=429)], Quota(6000, 6000), 75.0, 1)
    assert (run.efficiency, run.bound_s, run.refused, run.failed) == (0.8, 60.0, 1, 1)
    assert run.refused_part == pytest.approx(1 / 121)


def test_learning_is_judged_after_the_first_minute() -> None:
    """What was refused before is not held against it; a short run has no figure."""
    early = [call(t, status=429) for t in range(50)]
    late = [call(60 + t, 95, took_s=1 if t == 59 else 0) for t in range(60)]
    run = after_learning(early + late, QUOTA, 120.0, 0)
    assert run.efficiency == pytest.approx(0.95)
    assert run.refused == 0
    assert after_learning([call(0), call(70)], QUOTA, 70.0, 0).efficiency is None


def test_beside_another_program_what_it_left_is_the_measure() -> None:
    """Its own 429s are its own."""
    calls = [call(0, 8550), call(1, 3000, user="foreign"), call(2, status=429, user="foreign")]
    run = beside_foreign(calls, QUOTA, 60.0, 0)
    assert run.efficiency == pytest.approx(0.95)
    assert (run.calls, run.refused) == (1, 0)


def test_medians_leave_runs_without_a_figure_out() -> None:
    """Every figure has its own median."""
    runs = [judged("vessel", [call(t) for t in range(120)], Quota(6000, 6000), taken, 0) for taken in (60, 75, 120)]
    median = median_of([*runs, judged("vessel", [], QUOTA, 1.0, 0)])
    assert median.efficiency == 0.8
    assert median.makespan_s == 67.5


def test_the_goals_grow_with_the_batch() -> None:
    """A batch's tail weighs less in a long one."""
    assert goals("configured", 3000) == (0.97, 0.001)
    assert goals("learned", 6000) == (0.985, 0.001)
    assert goals("foreign", 6000) == (0.95, 0.005)


def test_the_rate_counts_from_the_drained_bucket_to_the_batchs_last_start() -> None:
    """The full bucket at the beginning is not part of the rate, and the tail is not either."""
    calls = [*(call(0.1 * n, 600) for n in range(10)), *(call(1.0 + t) for t in range(40))]
    assert rate(calls, calls, 6000) == pytest.approx(100, rel=0.2)
    assert rate(calls, calls[::2], 6000) == pytest.approx(50, rel=0.2)
    assert rate([call(0)], [call(0)], 6000) == 0.0


def test_recovery_is_when_a_few_seconds_used_the_refill_rate() -> None:
    """At 100 tokens a second, 5 s must hold 475; answers from before the end of the outage do not count."""
    before = [call(t, 1000) for t in range(10)]
    assert recovery_s([*before, *(call(20 + t) for t in range(10))], 20.0, 6000) == 4.0
    assert recovery_s([*before, call(25, 10)], 20.0, 6000) is None


def test_an_outage_is_seen_in_the_log() -> None:
    """It begins and ends with the calls that met it."""
    calls = [call(1), call(2, status=503, reason="outage_503"), call(9, status=0, reason="outage_hang"), call(12)]
    assert span(calls) == (2, 9)


def test_jobs_that_never_ended_count_as_failed() -> None:
    """The makespan ends with the last job that did end."""
    jobs = [Done("a", "succeeded", "", 10.0, 12.0), Done("b", "parked", "x", 9.0, None)]
    assert failed(jobs) == 1
    assert makespan_s(jobs) == 3.0
    assert makespan_s([Done("b", "parked", "x", 9.0, None)]) == 0.0


@pytest.mark.parametrize(("told", "limits"), [(QUOTA, {"rpm": 60, "tpm": 6000}), (None, None)])
def test_the_registry_tells_limits_or_none(told: Quota | None, limits: dict[str, int] | None) -> None:
    """In learned mode the model has no limits at all."""
    model = tomllib.loads(registry_text(told))["models"][MODEL]
    assert model.get("limits", {}).get("developer") == limits
