"""The `vessel` object: each fault is told with its parameter; and what makes two requests the same."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from vessel.errors import InvalidRequest
from vessel.submit import body_hash
from vessel.wire import Policy, Priority, check_submission, parse_duration_s

MESSAGES = [{"role": "user", "content": "x"}]


def deep(levels: int) -> dict[str, Any]:
    """Nest objects."""
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


DURATIONS: tuple[Any, ...] = (
    0,
    -1,
    "0s",
    "",
    ".",
    "soon",
    "1e3",
    "-5s",
    "h",
    "5y",
    "1h x",
    True,
    math.nan,
    math.inf,
    10**400,
    "9" * 400,
    "367d",
    "٣s",
    [],
    {},
)
ATTEMPTS: tuple[Any, ...] = (
    0,
    -1,
    21,
    999,
    2.5,
    2.0,
    True,
    "3",
    None,
)
CAPS: tuple[Any, ...] = (
    0,
    -1,
    "0",
    math.nan,
    math.inf,
    "NaN",
    "Infinity",
    "much",
    True,
    [],
)
FALLBACKS: tuple[Any, ...] = (
    "other",
    "",
    None,
    {},
    1,
    True,
)
CONTEXTS: tuple[Any, ...] = (
    {"a": math.nan},
    {"a": "\ud800"},
    {"a": ...},
    {"a": b"\xff"},
    {"a": {1}},
    [],
)
FAULTS: list[tuple[Any, str]] = [
    ([], "vessel"), ("x", "vessel"), (3, "vessel"),
    ({"colour": 1}, "vessel.colour"),
    ({"priority": 11}, "vessel.priority"), ({"priority": "urgent"}, "vessel.priority"),
    ({"task_type": "poetry"}, "vessel.task_type"), ({"on_outage": "wait"}, "vessel.on_outage"),
    ({"speed_priority": "slow"}, "vessel.speed_priority"),
    ({"tier": "t" * 65}, "vessel.tier"), ({"tier": "\ud800"}, "vessel.tier"), ({"tier": 1}, "vessel.tier"),
    *[({name: value}, f"vessel.{name}") for name in ("deadline", "max_wait")
      for value in DURATIONS],
    *[({"max_attempts": value}, "vessel.max_attempts") for value in ATTEMPTS],
    *[({"max_cost_usd": value}, "vessel.max_cost_usd")
      for value in CAPS],
    *[({"fallback": value}, "vessel.fallback") for value in FALLBACKS],
    ({"fallback": [""]}, "vessel.fallback"), ({"fallback": [1]}, "vessel.fallback"),
    ({"fallback": ["m" * 201]}, "vessel.fallback"),
    ({"tags": [1]}, "vessel.tags"), ({"tags": {str(i): "" for i in range(17)}}, "vessel.tags"),
    ({"tags": {"a": 1}}, "vessel.tags.a"), ({"tags": {"a": {"b": "c"}}}, "vessel.tags.a"),
    ({"tags": {"k" * 65: "v"}}, f"vessel.tags.{'k' * 64}"), ({"tags": {"k": "v" * 513}}, "vessel.tags.k"),
    ({"tags": {"k": "\ud800"}}, "vessel.tags.k"), ({"tags": {"\ud800": "v"}}, "vessel.tags"),
    *[({"idempotency_key": key}, "vessel.idempotency_key")
      for key in ("", "k" * 256, "a\nb", "a\x00b", "é", "\x7f", "tab\t", 3)],
    ({"webhook": "w" * 2049}, "vessel.webhook"),
    ({"builtin_tools": ["shell"]}, "vessel.builtin_tools.0"), ({"builtin_tools": "web_search"}, "vessel.builtin_tools"),
    *[({"context": value}, "vessel.context")
      for value in CONTEXTS],
]  # fmt: skip


@pytest.mark.parametrize(("policy", "param"), FAULTS, ids=lambda value: ascii(value)[:40])
def test_a_fault_is_told_with_its_parameter(policy: Any, param: str) -> None:
    """The same whether the object came inside the body or beside it."""
    for body, apart in (({"messages": MESSAGES}, policy), ({"messages": MESSAGES, "vessel": policy}, None)):
        with pytest.raises(InvalidRequest) as caught:
            check_submission(body, apart)
        assert caught.value.param == param
        assert str(caught.value).startswith(param)
        assert not any(word in str(caught.value) for word in ("literal[", "tuple[", "[key]"))


def test_a_context_is_not_nested_without_end() -> None:
    """It is refused before anything walks down it."""
    with pytest.raises(InvalidRequest) as caught:
        check_submission({"messages": MESSAGES}, {"context": deep(100_000)})
    assert caught.value.param == "vessel.context"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(90, 90), (0.5, 0.5), ("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), (" 1h 30m ", 5400),
     ("1.5h", 5400), ("250ms", 0.25), ("366d", 366 * 86400), ("1d", 86400)],
)  # fmt: skip
def test_a_duration_is_read(text: str | float, seconds: float) -> None:
    """Numbers are seconds; texts carry their unit."""
    assert parse_duration_s(text) == seconds
    assert Policy.model_validate({"deadline": text}).deadline == seconds


def test_the_least_policy_is_the_contracts_default() -> None:
    """Nothing given: normal priority, the tier's chain, five attempts, queued in an outage."""
    policy = check_submission({"messages": MESSAGES}).policy
    assert policy == Policy()
    assert (policy.priority, policy.fallback, policy.max_attempts, policy.on_outage) == (Priority.NORMAL, "chain", 5, "queue")  # fmt: skip # noqa: E501


@pytest.mark.parametrize("value", ["chain", "none", ("m",), []])
def test_a_fallback_is_a_word_or_a_list(value: Any) -> None:
    """Models are checked by the router, which knows them."""
    assert Policy.model_validate({"fallback": value}).fallback in {"chain", "none", ("m",), ()}


@pytest.mark.parametrize(("given", "cap"), [(0.1, "0.1"), (1e-7, "1E-7"), ("0.000001", "0.000001"), (2, "2")])
def test_a_cap_is_exact(given: Any, cap: str) -> None:
    """Money is decimal: 0.1 is a tenth, not the float next to it."""
    assert Policy.model_validate({"max_cost_usd": given}).max_cost_usd == Decimal(cap)


def test_the_limits_of_tags_are_inclusive() -> None:
    """Sixteen tags, names of 64, values of 512."""
    tags = {f"{i:064}": "v" * 512 for i in range(16)}
    assert Policy.model_validate({"tags": tags}).tags == tags


def test_a_policy_beside_the_body_wins() -> None:
    """Given apart, the one inside the body is not looked at, and is not sent on either."""
    submission = check_submission({"messages": MESSAGES, "vessel": {"nonsense": 1}}, {"tier": "power"})
    assert submission.policy.tier == "power"
    assert b"vessel" not in submission.body


# --- what makes two requests the same under one idempotency key ------------------------------------------------------


def hashed(body: dict[str, Any], **policy: Any) -> str:
    """Hash a request."""
    return body_hash(check_submission({"messages": MESSAGES} | body, policy))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (({"a": 1, "b": 2}, {}), ({"b": 2, "a": 1}, {})),
        (({"a": {"x": 1, "y": "é"}}, {}), ({"a": {"y": "\u00e9", "x": 1}}, {})),
        (({}, {"deadline": "90s"}), ({}, {"deadline": 90})),
        (({}, {"priority": "normal"}), ({}, {})),
        (({}, {"tags": {"a": "b"}}), ({}, {"tags": {"c": "d"}})),
        (({}, {"webhook": "https://a"}), ({}, {})),
        (({}, {"idempotency_key": "a"}), ({}, {"idempotency_key": "b"})),
    ],
)
def test_the_same_request_has_the_same_hash(one: Any, other: Any) -> None:
    """Key order, spelling of durations, defaults, tags and webhook make no other request."""
    assert hashed(one[0], **one[1]) == hashed(other[0], **other[1])


def test_another_request_has_another_hash() -> None:
    """Whatever could change the answer or the price changes the hash."""
    bodies: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"seed": 2**70}, {"seed": 2**70 + 1}, {"x": 1}, {"x": 1.0}, {"x": "1"}, {"x": [1]},
        {"x": True}, {"x": None}, {"x": 0.1 + 0.2}, {"x": 0.3}, {"x": 1e-7}, {"x": "e\u0301"}, {"x": "\u00e9"},
        {"x": ""}, {"y": ""},
    ]  # fmt: skip
    policies: list[dict[str, Any]] = [
        {"tier": "power"}, {"context": {"a": 1}}, {"max_cost_usd": "0.1"}, {"max_attempts": 4}, {"fallback": "none"},
        {"fallback": ["none"]}, {"deadline": 90}, {"priority": "batch"},
    ]  # fmt: skip
    hashes = [hashed(body) for body in bodies] + [hashed({}, **policy) for policy in policies]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize("cap", ["1e999999", "1000001"])
def test_a_cost_cap_beyond_counting_is_refused(cap: str) -> None:
    """`max_cost_usd="1e999999"` once ended in a decimal.Overflow out of the price table."""
    with pytest.raises(InvalidRequest, match="max_cost_usd"):
        check_submission({"messages": MESSAGES}, {"max_cost_usd": cap})
