"""Steering: cancel a job, run one again as a new job, maintenance, and spend caps."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vessel.errors import InvalidRequest, WrongState
from vessel.gate.view import Maintenance, read_maintenance
from vessel.keyspace.script import Arg, Call, command, load, pairs, word
from vessel.registry.suggest import no_tier
from vessel.usage.budgets import WHOLE, cap_nano

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from vessel.jobs.model import Job
    from vessel.jobs.steps import Answer
    from vessel.registry import Availability
    from vessel.submit import Door, Prepared

LONGEST_REASON = 200
LONGEST_TENANT = 128


def cancel(door: Door, job: Job) -> Call[Answer]:
    """Cancel a job: `closed` at once while it waits, `flagged` while it runs, `terminal` when it has ended."""
    return door.store.cancel(job)


def retry(door: Door, job: Job, *, availability: Availability, reply: str = "") -> Prepared:
    """Prepare the same request as a new job with `retry_of`, its answer as a whole; the old one is unchanged.

    Raises WrongState while the old one is open.
    """
    if not job.terminal:
        raise WrongState(
            f"Job {job.id} is {job.state}, so there is nothing to retry yet. Wait for it or cancel it first."
        )
    policy = {name: value for name, value in job.policy.items() if name != "idempotency_key"}
    body = json.loads(job.body)
    body.pop("stream", None)
    return door.prepare(body, policy, availability=availability, tenant=job.tenant, reply=reply, retry_of=job.id)


# --- maintenance ------------------------------------------------------------------------------------------------------


def set_maintenance(door: Door, tier: str | None, until_ms: int | None, reason: str = "") -> Call[Maintenance]:
    """Hold all jobs, or those of a tier, until a time of Redis' clock or, with None, until told otherwise.

    Jobs are accepted and held without using an attempt. One that goes on is changed and keeps its beginning. Raises
    InvalidRequest for an unknown tier and a reason that is too long, and its call does for a time that is over.
    """
    field, told = _field(door, tier), _one_line(reason)
    until = until_ms or 0

    def parse(raw: Any) -> Maintenance:
        answer, at = word(raw[0]), int(word(raw[1]))
        if answer == "past":
            raise InvalidRequest("until: this time is over. Nothing was changed. Name a later one.", param="until")
        return Maintenance(tier, until, at, told)

    args: dict[str, Arg] = {"field": field, "until_ms": until, "reason": told}
    return load("maintain").call({"maintenance": door.keys.maintenance}, args, parse)


def clear_maintenance(door: Door, tier: str | None) -> Call[bool]:
    """End the maintenance of a tier or, with None, all of it; held jobs go on no faster than the limits allow."""
    if tier is None:
        return command("DEL", door.keys.maintenance, parse=bool)
    return command("HDEL", door.keys.maintenance, _field(door, tier), parse=bool)


def maintenance(door: Door) -> Call[tuple[Maintenance, ...]]:
    """Read what is in maintenance, also what is over by now and was not ended by hand (see `clock`)."""

    def parse(raw: Any) -> tuple[Maintenance, ...]:
        return read_maintenance({name: value.decode() for name, value in pairs(raw).items()})

    return command("HGETALL", door.keys.maintenance, parse=parse)


def _field(door: Door, tier: str | None) -> str:
    if tier is None:
        return "all"
    if tier not in door.registry.tiers:
        text = f"{no_tier(tier, door.registry.tiers)} Nothing was changed. `vessel tiers` lists them."
        raise InvalidRequest(text, param="tier")
    return f"tier:{tier}"


def _one_line(reason: str) -> str:
    told = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
    if len(told) > LONGEST_REASON:
        text = f"reason: it has {len(told)} characters, and {LONGEST_REASON} are told to clients. Nothing was changed."
        raise InvalidRequest(f"{text} Shorten it.", param="reason")
    return told


# --- spend caps -------------------------------------------------------------------------------------------------------


def set_budget(
    door: Door, tenant: str | None, *, day: Decimal | None = None, month: Decimal | None = None
) -> Call[int]:
    """Cap what a tenant, or with None everybody, may spend, in USD; a cap that is None stays as it is.

    Answers since when spending is counted. Raises InvalidRequest for amounts that cannot be caps, and for none at all.
    """
    if day is None and month is None:
        raise InvalidRequest("No cap was given, so nothing was changed. Give an amount in USD a day or a month.")
    args: dict[str, Arg] = {
        "tenant": _tenant(tenant),
        "day_cap": _amount("day", day),
        "month_cap": _amount("month", month),
    }
    return load("cap").call(_budget_keys(door, tenant), args, lambda raw: int(word(raw)))


def clear_budget(door: Door, tenant: str | None) -> Call[bool]:
    """Take the caps of a tenant, or those of everybody, away; answers whether there were any."""
    return load("uncap").call(_budget_keys(door, tenant), {"tenant": _tenant(tenant)}, bool)


def capped(door: Door) -> Call[list[str]]:
    """Name the tenants that have a cap, everybody (`*`) first."""
    return command(
        "SMEMBERS", door.keys.budgets, parse=lambda raw: sorted(map(word, raw), key=lambda t: (t != WHOLE, t))
    )


def budget(door: Door, tenant: str) -> Call[Mapping[str, bytes]]:
    """Read the hash of a tenant's caps, for `read_budget`."""
    return command("HGETALL", door.keys.budget(tenant), parse=pairs)


def _budget_keys(door: Door, tenant: str | None) -> dict[str, str]:
    return {"budget": door.keys.budget(_tenant(tenant)), "budgets": door.keys.budgets}


def _tenant(tenant: str | None) -> str:
    if tenant is None:
        return WHOLE
    if not tenant or tenant == WHOLE or "|" in tenant or len(tenant) > LONGEST_TENANT or not tenant.isprintable():
        raise InvalidRequest(
            "tenant: it must be a tenant's name; leave it out for the cap of everybody. Nothing was changed.",
            param="tenant",
        )
    return tenant


def _amount(name: str, usd: Decimal | None) -> str:
    if usd is None:
        return ""
    rest = "Nothing was changed. `vessel budget clear` lifts a cap, `vessel maintenance on` holds all jobs."
    return str(cap_nano(name, usd, rest))
