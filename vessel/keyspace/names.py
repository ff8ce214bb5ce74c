"""Every key Vessel writes; how long each lives is told in `lives`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from vessel.keyspace.webhook_names import WebhookNames
from vessel.registry import Vessel, vessel_of


@dataclass(frozen=True, slots=True)
class Keys(WebhookNames):
    """Build key names under one namespace, so that several vessels share a Redis."""

    namespace: str

    def _key(self, *parts: str) -> str:
        return ":".join((self.namespace, *parts))

    def job(self, job_id: str) -> str:
        """Name the hash that is the truth about a job."""
        return self._key("job", job_id)

    def events(self, job_id: str) -> str:
        """Name the stream of a job's transitions."""
        return self._key("job", job_id, "events")

    def tokens(self, job_id: str) -> str:
        """Name the stream of a job's answer, piece by piece."""
        return self._key("job", job_id, "tokens")

    def idempotency(self, tenant: str, key: str) -> str:
        """Name the string that maps a tenant's idempotency key, hashed, to `job_id body_hash`."""
        return self._key("idem", tenant, hashlib.sha256(key.encode()).hexdigest()[:32])

    def queue(self, queue: str) -> str:
        """Name Celery's list for a queue (kombu prefixes with the same namespace)."""
        return self._key(queue)

    def tickets(self, queue: str) -> str:
        """Name the sorted set of issued and unclaimed tickets of a queue."""
        return self._key("tickets", queue)

    def gate(self, org: str, model: str) -> str:
        """Name the hash of a model's buckets and of what holds it back for the whole organisation."""
        return self._key("gate", org, model)

    def provider(self, org: str) -> str:
        """Name the hash of what holds all models of an organisation back."""
        return self._key("gate", org)

    def bookings(self, org: str, model: str) -> str:
        """Name the sorted set of a model's booked starts."""
        return self._key("gate", org, model, "bookings")

    def inflight(self, org: str, model: str) -> str:
        """Name the sorted set of a model's calls under way, by the time each is over at the latest."""
        return self._key("inflight", org, model)

    def fed(self, org: str, model: str) -> str:
        """Name the sorted set of a model's jobs that were given a ticket and have not asked the gate yet."""
        return self._key("fed", org, model)

    def output(self, org: str, model: str) -> str:
        """Name the hash that counts a model's answers by kind of work and length."""
        return self._key("output", org, model)

    def budget(self, tenant: str) -> str:
        """Name a tenant's caps; that of `*` holds for all."""
        return self._key("budget", tenant)

    @property
    def budgets(self) -> str:
        """Name the set of the tenants that have a cap."""
        return self._key("budgets")

    @property
    def spend_events(self) -> str:
        """Name the stream that tells of caps that are nearly or wholly used."""
        return self._key("budgets", "events")

    def flows(self, group: str) -> str:
        """Name the sorted set of a group's flows by the tokens they were given."""
        return self._key("backlog", "flows", group)

    def backlog(self, group: str, flow: str) -> str:
        """Name the sorted set of a flow's waiting jobs by deadline."""
        return self._key("backlog", "jobs", group, flow)

    def wake(self, worker: str) -> str:
        """Name the channel on which a worker process hears that a booking may start early."""
        return self._key("wake", worker)

    def file(self, file_id: str) -> str:
        """Name a file's record."""
        return self._key("file", file_id)

    def chunk(self, file_id: str, number: int) -> str:
        """Name one of the strings in which a file lies."""
        return self._key("file", file_id, str(number))

    def chunk_readers(self, file_id: str) -> str:
        """Name the set of the batches that were made of a file."""
        return self._key("file", file_id, "readers")

    def files(self, tenant: str) -> str:
        """Name the sorted set of a tenant's files by creation time."""
        return self._key("files", tenant)

    def gone_files(self, listed: str) -> str:
        """Name the sorted set of what was deleted lately from a tenant's list of files, given by its full name."""
        return f"{listed}:gone"

    def batch(self, batch_id: str, part: str = "") -> str:
        """Name a batch's record, or one of its parts."""
        return self._key("batch", batch_id, part) if part else self._key("batch", batch_id)

    def batches(self, tenant: str) -> str:
        """Name the sorted set of a tenant's batches by creation time."""
        return self._key("batches", tenant)

    def once(self, tenant: str, what: str) -> str:
        """Name the string that says which batch or file a repeated request made."""
        return self._key("batches", "key", tenant, hashlib.sha256(what.encode()).hexdigest()[:32])

    @property
    def open_batches(self) -> str:
        """Name the sorted set of batches that have not ended."""
        return self._key("batches")

    @property
    def groups(self) -> str:
        """Name the set of the backlog's groups."""
        return self._key("backlog")

    @property
    def maintenance(self) -> str:
        """Name the hash of what is in maintenance."""
        return self._key("maintenance")

    def live(self, tier: str) -> str:
        """Name the sorted set of workers serving a tier, scored by their last heartbeat."""
        return self._key("live", tier)

    @property
    def slots(self) -> str:
        """Name the hash of live workers' job slots."""
        return self._key("slots")

    def release(self, worker: str) -> str:
        """Name the string that says of which release a live worker is."""
        return self._key("release", worker)

    def reply(self, process: str) -> str:
        """Name the stream that wakes one process' waiters."""
        return self._key("reply", process)

    @property
    def restoring(self) -> str:
        """Name the string that is there while a restore has not ended."""
        return self._key("restoring")

    def role(self, role: str) -> str:
        """Name the lease that lets one process play a role (sweeper, usage log writer)."""
        return self._key("role", role)

    @property
    def index(self) -> str:
        """Name the sorted set of all jobs by creation time."""
        return self._key("jobs")

    def own_index(self, tenant: str) -> str:
        """Name the sorted set of a tenant's jobs by creation time."""
        return self._key("jobs", tenant)

    def failures(self, tenant: str) -> str:
        """Name the sorted set of a tenant's last jobs without a result by the time they ended."""
        return self._key("failures", tenant)

    @property
    def tenants(self) -> str:
        """Name the set of the tenants that have jobs."""
        return self._key("tenants")

    @property
    def leases(self) -> str:
        """Name the sorted set of running jobs by the end of their lease."""
        return self._key("leases")

    @property
    def parked(self) -> str:
        """Name the sorted set of parked jobs by their due time."""
        return self._key("parked")

    @property
    def deadlines(self) -> str:
        """Name the sorted set of open jobs by deadline."""
        return self._key("deadlines")

    @property
    def ledger(self) -> str:
        """Name the stream of charged calls."""
        return self._key("ledger")

    @property
    def ledger_log(self) -> str:
        """Name the hash that tells how far the usage log has been written and the ledger trimmed."""
        return self._key("ledger", "log")

    def sums(self, part: str = "sums", day: int | None = None) -> str:
        """Name a hash of sums: `sums` or `tags` of the last hours, or of a UTC day its `day`, `hours` or `tags`."""
        return self._key("ledger", part) if day is None else self._key("ledger", part, str(day))

    @property
    def tally(self) -> str:
        """Name the hash of the ledger's sums for metrics."""
        return self._key("tally")

    @property
    def refusals(self) -> str:
        """Name the hash that counts, by hour, what was refused."""
        return self._key("refusals")

    @property
    def models(self) -> str:
        """Name the hash with the upstream's model list and the models seen gone."""
        return self._key("models")

    @property
    def api_keys(self) -> str:
        """Name the hash of the API keys."""
        return self._key("apikeys")

    @property
    def quota(self) -> str:
        """Name what the keys begin with in which `limits` counts the requests of API keys."""
        return self._key("quota")

    def repeat(self, tenant: str, digest: str) -> str:
        """Name the sorted set of the jobs that a tenant's POST has made lately."""
        return self._key("repeat", tenant, digest)

    @property
    def sweep(self) -> str:
        """Name the hash in which sweeps notice that Redis was away."""
        return self._key("sweep")

    @property
    def unacked(self) -> str:
        """Name kombu's hash of delivered and unacknowledged messages."""
        return self._key("unacked")


@dataclass(frozen=True, slots=True)
class JobKeys:
    """The keys a verb may touch for one job; scripts take them by these names."""

    job: str
    events: str
    tokens: str
    idem: str
    reply: str
    tickets: str
    queue: str
    index: str
    own_index: str
    tenants: str
    leases: str
    parked: str
    deadlines: str
    ledger: str
    sums: str
    tag_sums: str
    backlog: str
    flows: str
    groups: str
    batch: str
    batch_calls: str
    lines_out: str
    lines_err: str
    lines_open: str
    open_batches: str
    failures: str
    webhooks_due: str
    webhooks_log: str
    job_hook: str
    batch_hook: str


@dataclass(frozen=True, slots=True)
class GateKeys:
    """The keys of one model's gate; scripts take them by these names."""

    gate: str
    bookings: str
    inflight: str
    fed: str
    provider: str
    maintenance: str
    budget: str
    whole: str
    spend_events: str


FAILOVER_ORG = "@openai"
"""Where the failover endpoint's gates are; no organisation's label has this form."""


def gate_keys(keys: Keys, org: str, model: str, tenant: str) -> GateKeys:
    """Collect the keys of a model's gate for a tenant's call; without a model they name a gate that nobody uses.

    Models of the failover endpoint have breakers of their own, whatever the organisation, and no maintenance: a failing
    endpoint holds nothing of Groq's back, and a maintenance is what the endpoint stands in for.
    """
    known = model or "none"
    maintenance = keys.maintenance
    if vessel_of(known) is Vessel.OPENAI:
        org, maintenance = FAILOVER_ORG, keys.gate(FAILOVER_ORG, "maintenance")
    return GateKeys(
        gate=keys.gate(org, known),
        bookings=keys.bookings(org, known),
        inflight=keys.inflight(org, known),
        fed=keys.fed(org, known),
        provider=keys.provider(org),
        maintenance=maintenance,
        budget=keys.budget(tenant),
        whole=keys.budget("*"),
        spend_events=keys.spend_events,
    )


def job_keys(  # noqa: PLR0913  one name for each key
    keys: Keys, job_id: str, *, queue: str, idem: str = "", reply: str = "", group: str = "", flow: str = "",
    batch: str = "", tenant: str = "",
) -> JobKeys:  # fmt: skip
    """Collect a job's keys; `idem` and `reply` are full names or empty, as `batch` is; `tenant` for one to be made."""
    return JobKeys(
        job=keys.job(job_id),
        events=keys.events(job_id),
        tokens=keys.tokens(job_id),
        idem=idem or keys.idempotency("", ""),
        reply=reply or keys.reply("none"),
        tickets=keys.tickets(queue),
        queue=keys.queue(queue),
        index=keys.index,
        own_index=keys.own_index(tenant or "none"),
        tenants=keys.tenants,
        leases=keys.leases,
        parked=keys.parked,
        deadlines=keys.deadlines,
        ledger=keys.ledger,
        sums=keys.sums("sums"),
        tag_sums=keys.sums("tags"),
        backlog=keys.backlog(group, flow),
        flows=keys.flows(group),
        groups=keys.groups,
        batch=keys.batch(batch or "none"),
        batch_calls=keys.batch(batch or "none", "calls"),
        lines_out=keys.batch(batch or "none", "out"),
        lines_err=keys.batch(batch or "none", "err"),
        lines_open=keys.batch(batch or "none", "open"),
        open_batches=keys.open_batches,
        failures=keys.failures(tenant or "none"),
        webhooks_due=keys.webhooks,
        webhooks_log=keys.webhook_log,
        job_hook=keys.webhook(job_id),
        batch_hook=keys.webhook(batch or "none"),
    )
