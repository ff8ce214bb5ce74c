"""What a history of answers says about the next one's bound, and when it had better say nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from vessel.execute.output_history import OutputHistory
from vessel.gate.history import (
    KINDS,
    LAST_BUCKET,
    LEAST_ANSWERS,
    LEAST_CAP,
    MARGIN,
    bucket_of,
    kind_of,
    learned_cap,
    longest,
)
from vessel.gate.limiter import Charge
from vessel.jobs.model import Hop, Job
from vessel.keyspace.names import Keys
from vessel.registry import load_registry
from vessel.routing.output import DEFAULT_OUTPUT_TOKENS, default_output_tokens, output_tokens
from vessel.upstream.outcome import Failure, Reason, Success, Usage
from vessel.usage.rows import Call
from vessel.wire import ChatRequest, JobState, Policy, Priority, TaskType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.keyspace.connect import AsyncRunner
    from vessel.keyspace.script import Call as ScriptCall

MODEL = load_registry().model("llama-3.1-8b-instant")
KIND = "qa.text"
KEY = "v:output:default:llama-3.1-8b-instant"
TOOL = {"type": "function", "function": {"name": "f"}}


def request(**body: Any) -> ChatRequest:
    """Build a request."""
    return ChatRequest.model_validate({"messages": [{"role": "user", "content": "x"}]} | body)


def histogram(lengths: Sequence[int]) -> dict[int, float]:
    """Count answers by bucket."""
    found: dict[int, float] = {}
    for length in lengths:
        found[bucket_of(length)] = found.get(bucket_of(length), 0) + 1
    return found


# --- kinds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "policy", "kind"),
    [
        ({}, {"task_type": "qa"}, "qa.text"),
        ({"response_format": {"type": "text"}}, {"task_type": "qa"}, "qa.text"),
        ({"response_format": {"type": "json_object"}}, {"task_type": "extraction"}, "extraction.json"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, {"task_type": "qa"}, "qa.json"),
        ({"tools": [TOOL]}, {"task_type": "coding"}, "coding.tools"),
        ({"reasoning_effort": "low"}, {"task_type": "qa"}, "qa.text"),
        ({"reasoning_effort": "high"}, {"task_type": "qa"}, None),
        ({}, {"task_type": "general"}, None),
        ({"tools": [TOOL]}, {}, None),
        ({}, {"context": {"task_type": "qa"}}, None),
    ],
)
def test_a_kind_is_what_the_caller_said_the_work_is(body: Any, policy: Any, kind: str | None) -> None:
    """The task type he named and the shape he asked for; what nobody described has no history."""
    assert kind_of(request(**body), Policy.model_validate(policy)) == kind


@given(task=st.sampled_from(TaskType), tools=st.booleans(), shaped=st.booleans())
def test_kinds_are_a_closed_set(task: TaskType, *, tools: bool, shaped: bool) -> None:
    """However requests look, a hash has no more fields than kinds times buckets."""
    body: dict[str, Any] = {"response_format": {"type": "json_object"}} if shaped else {}
    found = kind_of(request(**body | ({"tools": [TOOL]} if tools else {})), Policy(task_type=task))

    assert (found is None) == (task is TaskType.GENERAL)
    assert found is None or found in KINDS


# --- bounds -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**20))
def test_a_bucket_is_at_most_half_wider_than_what_it_holds(tokens: int) -> None:
    """A length is taken for no less than it is, and for no more than its root-two neighbour."""
    taken_for = longest({bucket_of(tokens): 1.0})

    assert 0 <= bucket_of(tokens) <= LAST_BUCKET
    assert tokens <= taken_for <= max(2, tokens * 1.5)


def test_a_length_beyond_all_buckets_is_in_the_last() -> None:
    """An upstream that counts nonsense adds no field."""
    assert bucket_of(10**12) == LAST_BUCKET


def test_few_answers_are_not_believed() -> None:
    """A bound is only lowered on the word of enough answers."""
    assert learned_cap({}, 2048) is None
    assert learned_cap(histogram([5] * (LEAST_ANSWERS - 1)), 2048) is None
    assert learned_cap(histogram([5] * LEAST_ANSWERS), 2048) == LEAST_CAP


def test_answers_that_fill_the_default_leave_it() -> None:
    """Only what lies below the default is a bound of its own."""
    assert learned_cap(histogram([600] * 1000), 2048) is None


def test_one_long_answer_holds_the_bound_up() -> None:
    """It is no quantile: the one in a thousand counts, because it would be the one that is cut."""
    assert learned_cap(histogram([5] * 999 + [600]), 2048) is None
    assert learned_cap(histogram([5] * 999 + [128]), 2048) == 4 * 128


@given(st.lists(st.integers(1, 5000), min_size=LEAST_ANSWERS, max_size=LEAST_ANSWERS + 50), st.integers(256, 65536))
def test_no_bound_would_have_cut_what_was_seen(lengths: list[int], default: int) -> None:
    """A learned bound is far above every answer it is learned from, and below the default."""
    cap = learned_cap(histogram(lengths), default)

    assert cap is None or MARGIN * max(lengths) <= cap < default


def test_the_default_is_only_ever_lowered_and_the_rest_still_bounds() -> None:
    """The caller's own bound, the window and the limits stand above what was learned."""
    assert output_tokens(request(), MODEL, None, 10, 300) == 300
    assert output_tokens(request(), MODEL, None, 10, 10**6) == DEFAULT_OUTPUT_TOKENS
    assert output_tokens(request(max_tokens=1000), MODEL, None, 10, 300) == 1000
    assert output_tokens(request(), MODEL, None, MODEL.context_window - 100, 300) == 100


# --- what a worker does with it ---------------------------------------------------------------------------------------


class FakeRunner:
    """Answers every read with one history."""

    def __init__(self, lengths: Sequence[int]) -> None:
        """Take the lengths of the history."""
        self.histories = {KIND: histogram(lengths)}
        self.read: list[str] = []

    async def run_all(self, calls: Sequence[ScriptCall[Any]]) -> list[Any]:
        """Note which keys were read."""
        self.read += [str(call.command[1]) for call in calls]
        return [self.histories for _ in calls]


def known(*lengths: int) -> tuple[OutputHistory, FakeRunner, list[ScriptCall[Any]]]:
    """Make a worker's knowledge, its server and what it tells."""
    runner, told = FakeRunner(lengths), list[Any]()
    return OutputHistory(cast("AsyncRunner", runner), told.append, Keys("v"), "default"), runner, told


def answered(tokens: int, finish_reason: str = "stop") -> Success:
    """Build an answer of this length."""
    return Success(MODEL.id, b"{}", Usage(10, tokens), None, finish_reason)


def called(output: int) -> Call:
    """Build a call with this bound."""
    job = Job(
        id="job_1", tenant="t", state=JobState.RUNNING, generation=1, priority=Priority.NORMAL,
        hops=(Hop(MODEL.id, "ultra_fast"),), hop=0, tier="ultra_fast", model=MODEL.id, policy={}, reasons=(),
        body=b"{}", prompt_bytes=2, queue="ultra_fast", estimated_tokens=10, created_at=0, updated_at=0,
    )  # fmt: skip
    return Call(job, 1, MODEL, "ultra_fast", "w", 10, output, 0, Charge(MODEL.id, "default", (0,) * 6, 10, output))


async def test_a_history_is_read_behind_the_plan() -> None:
    """The first plans go with the default; only models that were asked for are read."""
    history, runner, _ = known(*[5] * 500)
    await history.refresh()
    assert (history.cap(KIND, MODEL), runner.read) == (None, [])
    await history.refresh()

    assert runner.read == [KEY]
    assert history.cap(KIND, MODEL) == LEAST_CAP
    assert history.cap("coding.text", MODEL) is None
    assert history.cap(None, MODEL) is None


def test_an_answer_is_told_under_its_kind() -> None:
    """Its length goes to the model's hash; failures and answers of no kind teach nothing."""
    history, _, told = known()
    history.note(None, called(100), answered(40))
    history.note(KIND, called(100), Failure(MODEL.id, Reason.TIMEOUT, "late"))
    assert told == []
    history.note(KIND, called(100), answered(40))

    assert told[0].command[3:6] == (KEY, KIND, bucket_of(40))


async def test_a_cut_answer_brings_the_default_back_at_once() -> None:
    """It counts as longer than every bound, in this process before anything is read; and the log names its job."""
    history, _, told = known(*[5] * 500)
    history.cap(KIND, MODEL)
    await history.refresh()
    with capture_logs() as logged:
        history.note(KIND, called(LEAST_CAP), answered(LEAST_CAP, "length"))

    assert history.cap(KIND, MODEL) is None
    counted = {int(told[0].command[5]): 1.0} | histogram([5] * 500)
    assert learned_cap(counted, default_output_tokens(MODEL)) is None
    (line,) = logged
    assert line == {
        "event": "output.cut", "log_level": "warning", "job_id": "job_1", "model": MODEL.id, "kind": KIND,
        "cap": LEAST_CAP,
    }  # fmt: skip


def test_a_cut_at_the_default_is_nothing_learned() -> None:
    """It counts, and nobody is told that a learned bound did it."""
    history, _, told = known()
    with capture_logs() as logged:
        history.note(KIND, called(DEFAULT_OUTPUT_TOKENS), answered(DEFAULT_OUTPUT_TOKENS, "length"))

    assert (len(told), logged) == (1, [])
