"""The ticket: what Lua fills in, what Celery reads, what the sweep reads back."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vessel.dispatch.queues import key_prefix, queue_for, queues_of, tiers_of
from vessel.dispatch.ticket import TASK_NAME, parse, render, template
from vessel.wire import Priority

MARKS = {"@QUEUE@", "@TAG@", "@TASK@", "@ARGS@", "@REPR@", "@RETRIES@"}
PAIRS = st.lists(st.tuples(st.text(max_size=40), st.integers(min_value=0, max_value=10**9)), max_size=32)


@given(pairs=PAIRS, queue=st.text(max_size=20), shown=st.text(max_size=20))
def test_what_is_rendered_is_read_back(pairs: list[tuple[str, int]], queue: str, shown: str) -> None:
    """Any ids survive both layers of JSON, and the other marks land in their places."""
    envelope = render(queue, pairs, "tag-1", "task-1", shown)
    assert parse(envelope) == pairs
    message = json.loads(envelope)
    assert message["properties"]["delivery_info"] == {"exchange": "", "routing_key": queue}
    assert message["headers"]["argsrepr"] == shown


def test_a_value_that_looks_like_a_mark_is_not_filled_in() -> None:
    """Values are put in once, as Lua's gsub does; a mark inside a value stays text."""
    message = json.loads(render("power", [("job_1", 0)], "@ARGS@", "@TAG@", "@QUEUE@"))
    assert message["properties"]["delivery_tag"] == "@ARGS@"
    assert message["headers"]["id"] == "@TAG@"
    assert message["headers"]["argsrepr"] == "@QUEUE@"


def test_the_template_is_json_whose_marks_are_all_known() -> None:
    """Every mark stands inside a JSON string, or for a number, so Lua may replace it without parsing."""
    message = json.loads(template().replace("@RETRIES@", "0"))
    assert message["headers"]["task"] == TASK_NAME
    assert set(re.findall("@[A-Z]+@", template())) == MARKS
    assert json.loads(message["body"].replace("@ARGS@", "[]")) == [
        [[]],
        {},
        {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
    ]


def test_the_template_filled_as_the_scripts_do_gives_the_same_envelope() -> None:
    """Escaped quotes around the id are all that Lua adds."""
    filled = template()
    marks = {
        "@QUEUE@": "power",
        "@RETRIES@": "0",
        "@TAG@": "job_1:3:17",
        "@TASK@": "job_1:3",
        "@ARGS@": '[[\\"job_1\\",3]]',
        "@REPR@": "job_1:3 power openai/gpt-oss-120b",
    }
    for mark, value in marks.items():
        filled = filled.replace(mark, value)
    shown = "job_1:3 power openai/gpt-oss-120b"
    assert filled == render("power", [("job_1", 3)], "job_1:3:17", "job_1:3", shown)


def test_a_base64_body_of_a_plain_kombu_producer_is_read_too() -> None:
    """Kombu's default body encoding is base64."""
    message = json.loads(render("power", [("job_1", 3)], "t", "i", "r"))
    message["body"] = base64.b64encode(message["body"].encode()).decode()
    message["properties"]["body_encoding"] = "base64"
    assert parse(json.dumps(message).encode()) == [("job_1", 3)]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b'{"headers":{"task":"other.task"},"body":"[[[[\\"a\\",1]]],{},{}]","properties":{}}',
        b'{"headers":{"task":"vessel.run_jobs"},"body":"[]","properties":{}}',
        b'{"headers":{"task":"vessel.run_jobs"},"body":"[[[[1]]]]","properties":{}}',
        b'{"headers":{"task":"vessel.run_jobs"},"body":"!","properties":{"body_encoding":"base64"}}',
        b'{"headers":[],"body":"x","properties":{}}',
    ],
)
def test_a_foreign_or_broken_envelope_holds_no_pairs(raw: bytes) -> None:
    """The sweep reads every message of a queue and must not stumble over one."""
    assert parse(raw) == []


def test_the_ticket_is_made_without_celery() -> None:
    """Producers write tickets; importing Celery would cost them half a second."""
    names = "[m for m in ('celery', 'kombu') if m in sys.modules]"
    program = f"import sys, vessel.dispatch.ticket, vessel.dispatch.queues; print({names})"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_queues_are_tiers_and_lanes_and_back() -> None:
    """Only batch has its own lane; a worker's tiers follow from the queues it consumes."""
    assert [queue_for("power", priority) for priority in Priority] == ["power", "power", "power.batch"]
    assert queues_of(["power", "balanced"]) == ("power", "power.batch", "balanced", "balanced.batch")
    assert tiers_of(["power.batch", "balanced", "power"]) == ("power", "balanced")
    assert key_prefix("vessel") + "power" == "vessel:power"
