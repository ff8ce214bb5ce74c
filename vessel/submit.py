"""The only door in: check, estimate, route, and write a job with its ticket.

Everything here is either pure or a call that both runners can run, so producers may be sync or async.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vessel.batches.file_store import FileStore
from vessel.batches.store import BatchStore
from vessel.dispatch.queues import queue_for
from vessel.dispatch.ticket import render, template
from vessel.errors import CostCapTooSmall, IdempotencyConflict, InvalidRequest, NoRedis
from vessel.gate.tokens import counts_alike, estimate_tokens, max_prompt_tokens
from vessel.jobs.record import NewJob, new_job_id
from vessel.jobs.steps import Answer, Issue
from vessel.jobs.store import JobStore
from vessel.keyspace.names import Keys
from vessel.keyspace.script import Call, command, load, pairs, word
from vessel.notify.addresses import PARAM, check_url
from vessel.observe import tracing
from vessel.observe.tracing import JOB, PRIORITY, REQUEST_MODEL, TIER, SpanKind
from vessel.registry import Availability, Model, Registry, Vessel, failover_of, load_registry, resolve, vessel_of
from vessel.routing.output import affordable_output_tokens, output_tokens
from vessel.routing.router import Route, route
from vessel.settings import Settings, resolve_redis_url
from vessel.usage.prices import tools_reserve_nano_usd
from vessel.wire import Policy, Priority, Submission, check_submission

SILENT_MS = 2000
"""A worker that has not been heard for so long counts as gone."""

TICKETS_PER_MESSAGE = 16
DEFAULT_TENANT = "default"
_NOT_IDENTITY = frozenset({"tags", "webhook", "idempotency_key"})


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job that is checked and routed but not written yet."""

    new: NewJob
    queue: str
    route: Route


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that is safely in Redis; `existing` when its idempotency key had been used for the same body."""

    id: str
    tier: str
    model: str
    existing: bool = False


def redis_url(settings: Settings) -> str:
    """Return the Redis to use; raise NoRedis where none is set and no `vessel up` of this data directory runs."""
    url = resolve_redis_url(settings)
    if url is None:
        raise NoRedis(
            f"No Redis is known: VESSEL_REDIS_URL is unset, and no `vessel up` runs in {settings.data_dir.absolute()}. "
            "Start `vessel up`; if it runs, go to its folder or set VESSEL_DATA_DIR as it is there; or set "
            "VESSEL_REDIS_URL (redis://host:6379/0)."
        )
    return url


def body_hash(submission: Submission) -> str:
    """Hash a request in canonical form with its policy, without tags and webhook (contract 5)."""
    policy = submission.policy.model_dump(mode="json", exclude=set(_NOT_IDENTITY))
    canonical = json.dumps([json.loads(submission.body), policy], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_availability(record: Mapping[str, bytes], today: datetime) -> Availability:
    """Read what the key may call; a model seen gone after the list was fetched counts as gone."""
    listed = record.get("listed")
    fetched = int(record.get("fetched_at", b"0"))
    gone = {name.removeprefix("gone:") for name, at in record.items() if name.startswith("gone:") and int(at) > fetched}
    return Availability(
        listed=frozenset(json.loads(listed)) if listed else None, gone=frozenset(gone), today=today.date()
    )


class Door:
    """Turn requests into jobs. Holds no connection: its calls are run by the caller's runner."""

    def __init__(self, settings: Settings, registry: Registry | None = None) -> None:
        """Load the registry unless one is given."""
        self.settings = settings
        self.registry = registry or load_registry(settings.registry)
        self.failover = failover_of(self.registry, settings)
        self.keys = Keys(settings.namespace)
        self.store = JobStore(
            self.keys,
            template(),
            ttl_ms=int(settings.result_ttl * 1000),
            lease_ms=int(settings.lease * 1000),
            org=settings.org,
        )
        self.files = FileStore(self.keys)
        self.batches = BatchStore(self.keys, self.store.ttl_ms)
        tracing.begin(settings, tracing.CLIENT)

    def model_of(self, hop: str) -> Model:
        """Return the model behind a hop's name; the failover vessel's is the one set now. Raises UnknownModel."""
        if self.failover is not None and vessel_of(hop) is Vessel.OPENAI:
            return self.failover.model
        return self.registry.model(hop)

    def served(self, model: str, availability: Availability) -> str:
        """Name the model whose gate the jobs that wait for a model pass: its successor's, or the failover vessel's."""
        if vessel_of(model) is Vessel.OPENAI:
            return self.failover.model.id if self.failover else model
        if model not in self.registry.models:  # a job that was made with another registry
            return model
        return resolve(self.registry, model, availability) or model

    def availability(self) -> Call[Availability]:
        """Ask which models the key may call, as workers last saw it."""
        today = datetime.now(UTC)
        return command("HGETALL", self.keys.models, parse=lambda raw: read_availability(pairs(raw), today))

    def alive(self, tiers: Sequence[str] | None = None) -> Call[dict[str, int]]:
        """Count the live workers of each tier."""
        names = list(tiers or self.registry.tiers)
        return load("alive").call(
            {},
            {"silent_ms": SILENT_MS},
            lambda raw: dict(zip(names, (int(n) for n in raw), strict=True)),
            more_keys=[self.keys.live(name) for name in names],
        )

    def slots(self) -> Call[int]:
        """Count the job slots of all live workers."""
        return command("HVALS", self.keys.slots, parse=lambda raw: sum(int(n) for n in raw))

    def plan(
        self,
        body: Mapping[str, Any],
        policy: Mapping[str, Any] | Policy | None = None,
        *,
        availability: Availability,
        streaming: bool = False,
    ) -> tuple[Submission, Route, int]:
        """Check and route a request without storing anything; returns it with its estimated prompt tokens.

        `streaming`: the caller reads the answer as it comes, so the request may ask for a stream.
        """
        submission = check_submission(body, policy)
        self.webhook(submission.policy.webhook)
        if submission.request.stream and not streaming:
            raise InvalidRequest("stream: nobody would read this answer as it comes; leave it out.", param="stream")
        messages = [m if isinstance(m, Mapping) else m.model_dump() for m in body["messages"]]
        estimate = estimate_tokens(messages, submission.request.model, submission.request.tools)
        found = route(submission, self.registry, availability, estimated_tokens=estimate, failover=self.failover)
        served = found.hops[0].model
        if not counts_alike(served, submission.request.model):
            estimate = estimate_tokens(messages, served, submission.request.tools)
        return submission, found, estimate

    def prepare(
        self,
        body: Mapping[str, Any],
        policy: Mapping[str, Any] | Policy | None = None,
        *,
        availability: Availability,
        tenant: str = DEFAULT_TENANT,
        reply: str = "",
        retry_of: str | None = None,
        streaming: bool = False,
    ) -> Prepared:
        """Check and route a request; raise InvalidRequest and its kin, never touching Redis.

        A job that streams is cancelled when nobody has read it for 10 s (`watch.tokens`).
        """
        if "|" in tenant:
            raise ValueError("a tenant's name holds no bar")
        with tracing.span("submit", SpanKind.PRODUCER, {}) as span:
            prepared = self._prepared(body, policy, availability, tenant, reply, retry_of, streaming=streaming)
            new, hop = prepared.new, prepared.new.hops[0]
            span.set({JOB: new.id, TIER: hop.tier, PRIORITY: str(new.priority), REQUEST_MODEL: hop.model})
            return prepared

    def _prepared(
        self,
        body: Mapping[str, Any],
        policy: Mapping[str, Any] | Policy | None,
        availability: Availability,
        tenant: str,
        reply: str,
        retry_of: str | None,
        *,
        streaming: bool,
    ) -> Prepared:
        submission, found, estimate = self.plan(body, policy, availability=availability, streaming=streaming)
        self._check_cost(submission, found, estimate)
        kept = submission.policy.model_copy(update={"webhook": self.webhook(submission.policy.webhook) or None})
        new = NewJob(
            id=new_job_id(),
            tenant=tenant,
            priority=kept.priority,
            hops=found.hops,
            policy=kept.model_dump(mode="json", exclude_defaults=True),
            reasons=found.reasons,
            body=submission.body,
            body_hash=body_hash(submission) if kept.idempotency_key else "",
            estimated_tokens=estimate,
            output_tokens=self._output_bound(submission, found, estimate),
            deadline_ms=int((kept.deadline or 0) * 1000),
            idempotency_key=kept.idempotency_key,
            reply=reply,
            retry_of=retry_of,
            builtin_tools=found.builtin_tools,
            streams=bool(submission.request.stream),
            trace=tracing.current(),
            request_id=tracing.current_request(),
        )
        return Prepared(new, queue_for(found.hops[0].tier, kept.priority), found)

    def webhook(self, url: object, param: str = PARAM) -> str:
        """Check where a webhook is to go; empty where nothing is. Raises InvalidWebhookUrl."""
        return "" if url is None else check_url(url, allow_private=self.settings.webhook_allow_private, param=param)

    def _output_bound(self, submission: Submission, found: Route, estimate: int) -> int:
        """Say how much the first model is asked for at most, for whoever must know it before a worker has planned."""
        model = self.model_of(found.hops[0].model)
        limits = model.limits.get(self.settings.groq_plan)
        return output_tokens(submission.request, model, limits, estimate)

    def _check_cost(self, submission: Submission, found: Route, estimate: int) -> None:
        cap = submission.policy.max_cost_usd
        if cap is None:
            return
        most = max_prompt_tokens(len(submission.body))
        chain = [hop for hop in found.hops if vessel_of(hop.model) is Vessel.GROQ]
        for hop in chain or found.hops:
            model = self.model_of(hop.model)
            wanted = output_tokens(submission.request, model, None, estimate)
            fees = self.tools_reserve(model, found.builtin_tools)
            fits = affordable_output_tokens(
                submission.request, model, wanted, most_prompt_tokens=most, cap_usd=cap, spent_nano=0, fees_nano=fees
            )
            if fits:
                return
        tools = f" with {' and '.join(found.builtin_tools)}" if found.builtin_tools else ""
        raise CostCapTooSmall(
            f"Even the cheapest model of the chain could cost more than max_cost_usd={cap:f} for this prompt{tools}, "
            "so nothing was sent. Raise the cap, shorten the prompt or lower max_completion_tokens.",
            param="vessel.max_cost_usd",
        )

    def tools_reserve(self, model: Model, tools: Sequence[str]) -> int:
        """Return what a call on a model sets aside for built-in tools, in nano-USD."""
        return tools_reserve_nano_usd(self.registry, model, tools, self.settings.call_timeout)

    def create(self, prepared: Prepared, *, issue: Issue = Issue.TICKET) -> Call[Accepted]:
        """Write the job; its call raises IdempotencyConflict when the key was used for another body.

        Batch work waits in the backlog, which feeds workers no faster than the gate can admit.
        """
        batch = prepared.new.priority is Priority.BATCH
        call = self.store.create(prepared.new, prepared.queue, issue=Issue.BACKLOG if batch else issue)

        def parse(raw: Any) -> Accepted:
            answer: Answer = call.parse(raw)
            if answer.word == "conflict":
                raise IdempotencyConflict
            hop = prepared.new.hops[0]
            return Accepted(answer.detail, hop.tier, hop.model, existing=answer.word == "exists")

        return Call(call.command, parse, call.script)

    def create_many(self, jobs: Sequence[Prepared]) -> list[Call[Any]]:
        """Write many jobs: one call per job, then messages that carry several tickets each.

        Run the messages once all jobs are written: one that is read before its job exists is dropped. A crash in
        between loses nothing: a job without a ticket is found by the sweep.
        """
        calls: list[Call[Any]] = [self.create(job, issue=Issue.MESSAGE_FOLLOWS) for job in jobs]
        groups: dict[str, list[Prepared]] = {}
        for job in jobs:
            if job.new.priority is not Priority.BATCH:
                groups.setdefault(job.queue, []).append(job)
        for queue, members in groups.items():
            size = min(TICKETS_PER_MESSAGE, max(1, len(members) // 8))
            starts = range(0, len(members), size)
            calls.extend(self._message(queue, members[at : at + size]) for at in starts)
        return calls

    def _message(self, queue: str, members: Sequence[Prepared]) -> Call[str]:
        first = members[0].new
        name = f"{first.id}:0" + (f"+{len(members) - 1}" if len(members) > 1 else "")
        shown = f"{name} {first.hops[0].tier} {first.hops[0].model}"
        envelope = render(queue, [(m.new.id, 0) for m in members], f"{name}:m", name, shown)
        return command("LPUSH", self.keys.queue(queue), envelope, parse=word)


def interactive(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what a caller who waits wants: the interactive lane unless another one was named."""
    return {"priority": Priority.INTERACTIVE} | dict(policy)
