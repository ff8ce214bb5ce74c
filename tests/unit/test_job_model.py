"""The state table is the only one, and it is what scripts, docs and code follow."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from vessel.gate.limiter import Charge
from vessel.jobs.model import TRANSITIONS, Hop, Job, Verb, sources
from vessel.jobs.record import NewJob, new_job_id, read_attempts, read_job
from vessel.jobs.steps import NO_ATTEMPT, Feed, Final, Held, Start, Wait
from vessel.jobs.store import LIGHT_FIELDS, JobStore
from vessel.jobs.tokens import Batch, stream
from vessel.keyspace.lives import TTL_CLASSES, family
from vessel.keyspace.names import Keys, job_keys
from vessel.wire import TERMINAL, JobState, Priority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from vessel.keyspace.script import Call

ROOT = Path(__file__).parents[2]
ELSEWHERE = {
    "vessel/wire.py": "the place of the states",
    "vessel/keyspace/names.py": "the name of a key family",
    "vessel/keyspace/lives.py": "the name of a key family",
    "vessel/upstream/outcome.py": "a reason of a failure",
    "vessel/execute/job.py": "the reason of an end",
    "vessel/jobs/steps.py": "how a call ended",
    "vessel/usage/rows.py": "how a call ended",
    "vessel/usage/sums.py": "how a call ended",
    "vessel/watch/__init__.py": "the name of a function",
    "vessel/batches/model.py": "the statuses of a batch, which are OpenAI's",
    "vessel/batches/files.py": "the status of a batch",
}
LIGHT = ("vessel/cli/", "vessel/client/", "vessel/simulator/", "vessel/api/", "vessel/mcp/")
"""Faces that show what the JSON says: importing the models would cost them their start-up time."""

RECORD = {
    "id": b"job_1", "state": b"queued", "gen": b"0", "tenant": b"t", "priority": b"normal", "tier": b"power",
    "model": b"m", "hops": b'[["m","power",""]]', "hop": b"0", "policy": b"{}", "reasons": b"[]", "created": b"1",
    "updated": b"1", "est": b"3",
}  # fmt: skip


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Find state names as values; names of a dict's fields and of script arguments are not states."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    fields = {id(key) for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in set(JobState) and id(node) not in fields:
            yield node.lineno, str(node.value)


def test_no_state_is_named_outside_wire() -> None:
    """A state as a text is a second table in the making; code says JobState."""
    files = [p for folder in ("vessel", "workers") for p in (ROOT / folder).rglob("*.py")]
    named = {str(p.relative_to(ROOT)): list(literals(p)) for p in files}
    offenders = {name: found for name, found in named.items() if found and not name.startswith(LIGHT)}
    assert {name: found for name, found in offenders.items() if name not in ELSEWHERE} == {}


def test_ends_have_no_way_out() -> None:
    """No verb leads out of a terminal state, and every other state has a way to each end it needs."""
    assert not TERMINAL & {state for edge in TRANSITIONS.values() for state in edge.sources}
    for state in set(JobState) - TERMINAL:
        reached, todo = {state}, [state]
        while todo:
            here = todo.pop()
            new = {t for e in TRANSITIONS.values() if here in e.sources for t in e.leads(here)} - reached
            reached |= new
            todo += new
        assert reached >= TERMINAL


def test_an_edge_leads_only_to_its_targets() -> None:
    """What is said about one source is within what is said about the verb."""
    for verb, edge in TRANSITIONS.items():
        assert frozenset().union(*(edge.leads(s) for s in edge.sources or [JobState.QUEUED])) <= edge.targets, verb


CHARGE = Charge("m", "org", (0,) * 6, 1, 1)


def store() -> JobStore:
    """Build a store; nothing is sent."""
    return JobStore(Keys("ns"), "template", ttl_ms=1, lease_ms=1)


def given(call: Call[Any], name: str) -> object:
    """Read an argument by its name."""
    assert call.script is not None
    keys = int(call.command[2])
    return call.command[3 + keys + call.script.args.index(name)]


def test_each_verb_hands_its_script_the_sources_of_the_table() -> None:
    """Lua knows no state: what it may act from is an argument, made from the table."""
    job = read_job(RECORD)
    held, end = Held(job, 1, "o", store().of(job)), Final(JobState.FAILED)
    calls: dict[Verb, Call[Any]] = {
        Verb.CLAIM: store().claim("j", 0, "q", "o"),
        Verb.START: store().start(held, Start(1, "", "", "power", CHARGE, 0)),
        Verb.RENEW: store().renew([held]),
        Verb.STREAM: stream(held, 1, Batch(1, [])),
        Verb.FINISH: store().finish(held, NO_ATTEMPT, end),
        Verb.PARK: store().park(held, NO_ATTEMPT, 0, Wait(1, "")),
        Verb.REQUEUE: store().requeue(held, NO_ATTEMPT, 0, "q", reason="", message=""),
        Verb.RELEASE: store().release(held),
        Verb.PROMOTE: store().promote(job),
        Verb.FEED: store().feed(job, store().gate(job, CHARGE), Feed(1)),
        Verb.REISSUE: store().reissue(job, "q", 1),
        Verb.RESCUE: store().rescue(job),
        Verb.EXPIRE: store().expire(job),
    }
    assert {verb: given(call, "from") for verb, call in calls.items()} == {verb: sources(verb) for verb in calls}
    cancel = store().cancel(job)
    assert {*str(given(cancel, "from")).split(","), given(cancel, "when_running")} == TRANSITIONS[Verb.CANCEL].sources
    assert set(TRANSITIONS) - set(calls) == {Verb.CREATE, Verb.BOOK, Verb.CANCEL}
    assert TRANSITIONS[Verb.BOOK].sources == TRANSITIONS[Verb.START].sources


def docs() -> ModuleType:
    """Load the generator of the documentation."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_state_page_is_current() -> None:
    """docs/state.md is what `make docs` writes from the table."""
    assert (ROOT / "docs" / "state.md").read_text(encoding="utf-8") == docs().state_page()


def test_the_state_page_shows_every_edge() -> None:
    """Each verb is in the diagram, from each of its sources."""
    page = docs().state_page()
    for verb, edge in TRANSITIONS.items():
        for source in edge.sources or ["[*]"]:
            assert any(line.strip().startswith(f"{source} -->") and line.endswith(f": {verb}") for line in page.split("\n"))  # fmt: skip # noqa: E501


def test_a_record_is_read_as_it_was_written() -> None:
    """The fields a new job writes are those a job is read from, and a record of an older version lacks nothing."""
    new = NewJob(id=new_job_id(), tenant="t", priority=Priority.BATCH, hops=(Hop("m", "power", "n"),),
                 policy={"a": 1}, reasons=("r",), body=b"{}", body_hash="", estimated_tokens=3, reply="p",
                 retry_of="job_0", builtin_tools=("web_search",))  # fmt: skip
    flat = new.fields("power.batch", "idem")
    written = {str(k): v if isinstance(v, bytes) else v.encode() for k, v in zip(flat[::2], flat[1::2], strict=True)}
    job = read_job(RECORD | written)
    assert (job.priority, job.hops, job.policy, job.reasons, job.body) == (new.priority, new.hops, {"a": 1}, ("r",), b"{}")  # fmt: skip # noqa: E501
    assert (job.queue, job.idem, job.reply, job.retry_of) == ("power.batch", "idem", "p", "job_0")
    assert (job.builtin_tools, job.estimated_tokens, job.attempts) == (("web_search",), 3, ())


def test_payloads_are_in_no_repr() -> None:
    """A job or a result in a log line or a traceback shows neither prompt nor answer."""
    job = read_job(RECORD | {"body": b"CANARY", "response": b"CANARY"})
    final = Final(JobState.SUCCEEDED, {"response": b"CANARY"}, valid=True)
    assert "CANARY" not in repr(job) + repr(final) + repr(Held(job, 1, "o", store().of(job)))


def test_a_peek_reads_no_payload_and_all_that_sweeps_need() -> None:
    """The light fields leave out body, response and attempts, and nothing that a job is made from besides."""
    assert not {"body", "response", "n"} & set(LIGHT_FIELDS)
    assert len(set(LIGHT_FIELDS)) == len(LIGHT_FIELDS)
    full = dict.fromkeys(LIGHT_FIELDS, b"1") | RECORD | {"usage": b"{}", "cost": b"0.5"}
    light = {name: value for name, value in full.items() if name in LIGHT_FIELDS}
    assert read_job(light) == read_job(full)


def test_an_attempt_counts_until_its_ending_says_otherwise() -> None:
    """A call in flight counts, at its worst price; an ending may say that it does not count."""
    row = b'{"model":"m","tier":"t","worker":"w","worst_nano_usd":9}'
    record = {"n": b"2", "a:1": row, "at:1": b"5", "a:2": row, "at:2": b"6", "o:1": b'rate_limited {"counted":false}'}
    first, second = read_attempts(record)
    assert (first.outcome, first.counted, first.cost_nano_usd) == ("rate_limited", False, 0)
    assert (second.outcome, second.counted, second.cost_nano_usd) == ("unknown", True, 9)
    job = read_job(RECORD | record)
    assert (job.counted_attempts, job.spent_nano_usd) == (1, 9)
    assert isinstance(job, Job)


def test_ids_cannot_be_guessed() -> None:
    """128 random bits, each id its own."""
    assert len({new_job_id() for _ in range(1000)}) == 1000
    assert all(len(new_job_id()) == len("job_") + 32 for _ in range(3))


KEYS = Keys("ns")


@pytest.mark.parametrize(
    ("name", "which"),
    [
        (KEYS.job("job_1"), "job"), (KEYS.events("job_1"), "events"), (KEYS.idempotency("t", "k"), "idempotency"),
        (KEYS.queue("power.batch"), "queue"), (KEYS.tickets("power"), "tickets"), (KEYS.bookings("o", "m"), "gate"),
        (KEYS.provider("o"), "gate"), (KEYS.inflight("o", "m"), "inflight"), (KEYS.fed("o", "m/n"), "fed"),
        (KEYS.groups, "backlog"), (KEYS.flows("1|m"), "backlog"), (KEYS.backlog("1|m", "q|t"), "backlog"),
        (KEYS.maintenance, "maintenance"), (KEYS.budget("*"), "budget"), (KEYS.slots, "slots"),
        (KEYS.gate("o", "m"), "gate"), (KEYS.live("power"), "live"), (KEYS.reply("p"), "reply"),
        (KEYS.release("w@h:1"), "release"), (KEYS.restoring, "restoring"),
        (KEYS.role("r"), "role"), (KEYS.index, "index"), (KEYS.leases, "leases"), (KEYS.parked, "parked"),
        (KEYS.deadlines, "deadlines"), (KEYS.ledger, "ledger"), (KEYS.models, "models"), (KEYS.sweep, "sweep"),
        (KEYS.unacked, "kombu"), ("ns:_kombu.binding.power", "kombu"), ("ns:some:stranger", None),
    ],
)  # fmt: skip
def test_every_key_is_of_one_family(name: str, which: str | None) -> None:
    """A key's family says how long it may live; a name of no family is not ours."""
    assert family(name.removeprefix("ns:")) == which
    assert which is None or which in TTL_CLASSES


def test_keys_of_two_namespaces_never_meet() -> None:
    """Several vessels share a Redis."""
    ours, theirs = (job_keys(Keys(ns), "job_1", queue="power") for ns in ("a", "b"))
    assert not {getattr(ours, n) for n in ours.__slots__} & {getattr(theirs, n) for n in theirs.__slots__}


def test_an_idempotency_key_is_not_in_a_keys_name() -> None:
    """It may hold anything a caller thought of."""
    assert "secret key" not in KEYS.idempotency("t", "secret key")
    assert KEYS.idempotency("a", "k") != KEYS.idempotency("b", "k")
