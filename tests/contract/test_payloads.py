"""What goes in comes out: bodies and answers keep their bytes, whatever they hold."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.world import TIER, World, success
from vessel.jobs.steps import Wait
from vessel.wire import check_submission, encode_body

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")

MESSAGES = [{"role": "user", "content": "x"}]


def nested(depth: int) -> object:
    """Build JSON so many levels deep."""
    value: object = 0
    for level in range(depth):
        value = [value] if level % 2 else {"d": value}
    return value


BODIES: dict[str, dict[str, Any]] = {
    "unicode": {"messages": [{"role": "user", "content": "grüß dich, 世界, עולם, \u202e rtl"}]},
    "emoji": {"messages": [{"role": "user", "content": "👩‍👩‍👧‍👦🏳️‍🌈\U0010ffff"}]},
    "nul and controls": {"messages": [{"role": "user", "content": "a\x00b\x01\x1b\x7f\u2028\r\n\t"}]},
    "quotes and marks": {"messages": [{"role": "user", "content": "\"\\ @QUEUE@ @ARGS@ %s %% {} '; KEYS[1]"}]},
    "one megabyte": {"messages": [{"role": "user", "content": "é" * (1 << 19)}]},
    "empty but valid": {"messages": [{"role": "user", "content": ""}]},
    "no content": {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]},
    "big integers": {"messages": MESSAGES, "seed": 2**70, "x": {"n": -(2**63) - 1, "m": 10**40}},
    "floats": {"messages": MESSAGES, "x": [1e-7, 0.1 + 0.2, 1e22, 5e-324, 1.7976931348623157e308, -0.0, 1.0]},
    "deep": {"messages": MESSAGES, "x": nested(200)},
    "key order": {"z": 1, "messages": MESSAGES, "a": 2, "": 3, "Z": 4},
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_keeps_its_bytes(world: World, name: str) -> None:
    """Stored, claimed and read it is byte for byte what was encoded, and means what was meant."""
    body = encode_body(BODIES[name])
    job = world.queued(body=body)
    held = world.claim(job)
    assert job.body == held.job.body == body
    assert repr(held.job.request()) == repr(BODIES[name])
    assert job.prompt_bytes == len(body)


@pytest.mark.parametrize("name", [name for name in BODIES if name != "no content"])
def test_the_door_passes_on_what_it_does_not_know(name: str) -> None:
    """A check changes no byte of the body, known field or not."""
    assert check_submission(BODIES[name]).body == encode_body(BODIES[name])


@pytest.mark.parametrize("answer", [b"", b"\x00", bytes(range(256)), b"\xff\xfe", b"null", random.Random(7).randbytes(1 << 20)])  # fmt: skip # noqa: E501, S311
def test_an_answer_keeps_its_bytes(world: World, answer: bytes) -> None:
    """A response is never parsed on its way."""
    held = world.started()
    world.finish(held, success(answer=answer))
    assert world.job(held.job.id).response == answer


def test_texts_of_ours_survive_too(world: World) -> None:
    """Policies, reasons, messages and rows hold any text."""
    text = '"\\\x00é👩‍👧 @REPR@\n'
    job = world.queued(policy={"tags": {"k": text}}, reasons=(text,))
    held = world.claim(job)
    world.run(world.store.park(held, success(3)[0], 0, Wait(1, text, text)))
    found = world.job(job.id)
    assert (found.policy["tags"]["k"], found.reasons, found.reason, found.message) == (text, (text,), text, text)


def test_a_ticket_holds_no_payload(world: World) -> None:
    """Celery's message carries ids, tier and model, and no byte of the prompt."""
    world.queued(body=encode_body({"messages": [{"role": "user", "content": "CANARY"}]}))
    (message,) = world.client.lrange(world.keys.queue(TIER), 0, -1)
    assert b"CANARY" not in message
    assert json.loads(message)["headers"]["argsrepr"].endswith(f"{TIER} llama-3.1-8b-instant")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.redis("valkey")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(extra=JSON)
def test_any_json_survives(world: World, extra: object) -> None:
    """Whatever JSON can say comes back as it was said."""
    sent = {"messages": MESSAGES, "extra": extra}
    job = world.queued(body=check_submission(sent).body)
    assert repr(job.request()) == repr(sent)
