"""Who asks: API keys, their tenants and quotas, and what is served without a key."""

from __future__ import annotations

import ipaddress
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from limits import parse_many
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from vessel.api import keys as api_keys
from vessel.api.faults import Forbidden, QuotaReached, Unauthorized
from vessel.api.session import session_of
from vessel.errors import Unreachable
from vessel.keyspace.connect import as_vessel_error, quota_storage
from vessel.keyspace.server import clock
from vessel.submit import DEFAULT_TENANT

if TYPE_CHECKING:
    from limits import RateLimitItem

    from vessel.api.keys import ApiKey, KeyFile
    from vessel.api.session import Session
    from vessel.keyspace.script import Call

_SCHEME = HTTPBearer(auto_error=False, bearerFormat="vsl_...", description="A key made by `vessel keys create`.")
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
_UNKEYED_HELP = "Send it as `Authorization: Bearer vsl_...`; `vessel keys create` makes one."

_NO_KEYS_YET = (
    "There are no API keys yet, so only this machine itself is served, and nobody who comes through a proxy. "
    "Make a key with `vessel keys create` and send it as `Authorization: Bearer vsl_...`."
)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: whose jobs and files they see, and whether they may steer the whole vessel."""

    tenant: str
    key_id: str
    admin: bool
    quota: str = ""


LOCAL = Principal(DEFAULT_TENANT, "", admin=True)
"""Whoever asks from this machine while there are no keys."""


class Gatekeeper:
    """Check keys. Nothing is remembered, so that a revoked key opens nothing from then on."""

    def __init__(self, session: Session, file: KeyFile) -> None:
        """Take the way to Redis, and a key from a file."""
        self._session, self._file = session, file
        self._keys = session.door.keys
        self._limiter = SlidingWindowCounterRateLimiter(quota_storage(session.runner, self._keys.quota))

    async def identify(self, request: Request) -> Principal:
        """Return who asks. Raises Unauthorized, Forbidden, RedisUnreachable."""
        given = request.headers.getlist("authorization")
        text = _bearer(given)
        if text and self._file and self._file.opens(text):
            return Principal(DEFAULT_TENANT, "file", admin=True)
        key_id, secret = api_keys.split(text)
        asked: list[Call[Any]] = [api_keys.find(self._keys, key_id), clock(), api_keys.count(self._keys)]
        found, now, count = await self._session.runner.run_all(asked)
        key: ApiKey = found or api_keys.NOBODY
        if key.opens(secret, now):
            return Principal(key.tenant, key.id, admin=key.admin, quota=key.quota)
        if count == 0 and not self._file and not key_id:
            # SDKs cannot be made without some key, so any is as good as none; but a real one that opens nothing
            # (revoked, or of another vessel) was given to be checked.
            if not _from_here(request):
                raise Unauthorized(_NO_KEYS_YET)
            _refuse_pages(request)
            return LOCAL
        raise Unauthorized(f"The API key is missing or not valid. {_UNKEYED_HELP}")

    async def charge(self, who: Principal) -> None:
        """Count a request against all of a key's quotas, or, where one refuses it, against none. Raises QuotaReached.

        Quotas are asked one after the other, the one that is most likely to refuse first; what those before it have
        counted is given back, so that for that moment alone a request beside it may find a longer quota used up.
        """
        taken: list[RateLimitItem] = []
        for item in sorted(parse_many(who.quota) if who.quota else (), key=lambda quota: quota.get_expiry()):
            try:
                wait_s = await self._hit(item, who.key_id)
                if wait_s:
                    for before in taken:
                        await self._limiter.hit(before, who.key_id, cost=-1)
            except Exception as error:  # noqa: BLE001  what `limits` lets through is the Redis client's
                raise as_vessel_error(error) from None
            if wait_s:
                text = f"This key's quota of {item} is used up; nothing was accepted. Come back in {wait_s} s."
                raise QuotaReached(text, retry_after_s=wait_s)
            taken.append(item)

    async def _hit(self, item: RateLimitItem, key_id: str) -> int:
        """Count a request; returns in how many seconds the next one may come, 0 where this one may."""
        if await self._limiter.hit(item, key_id):
            return 0
        stats = await self._limiter.get_window_stats(item, key_id)
        return max(1, math.ceil(stats.reset_time - time.time()))


def _bearer(given: list[str]) -> str:
    """Return the token of exactly one header; an empty text for all else."""
    if len(given) != 1:
        return ""
    scheme, _, token = given[0].partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _from_here(request: Request) -> bool:
    client = request.client
    if any(name in request.headers for name in _FORWARDED):  # a proxy on this machine speaks for others
        return False
    if client is None:  # a unix socket
        return True
    try:
        return ipaddress.ip_address(client.host.partition("%")[0]).is_loopback
    except ValueError:
        return client.host == "testclient"


def _refuse_pages(request: Request) -> None:
    """Without keys, a page in the user's browser must not be able to spend their money. Raises Forbidden."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host", ""):
        raise Forbidden("A page of another origin may not call Vessel while it has no keys. Make one: `vessel keys`.")


async def principal(request: Request, _shown: Annotated[Any, Security(_SCHEME)] = None) -> Principal:
    """Identify who asks, and count the request against their quota."""
    keeper: Gatekeeper = request.app.state.gatekeeper
    who = await keeper.identify(request)
    request.state.tenant = who.tenant
    await keeper.charge(who)
    return who


async def scraper(request: Request, _shown: Annotated[Any, Security(_SCHEME)] = None) -> bool:
    """Identify whoever reads metrics; false where Redis is away and nobody can be: then no more than that is told."""
    try:
        await principal(request)
    except Unreachable:
        return False
    return True


async def tenant(who: Annotated[Principal, Depends(principal)]) -> str:
    """Return whose jobs, files and batches the request may see."""
    return who.tenant


async def admin(who: Annotated[Principal, Depends(principal)]) -> Principal:
    """Let through whoever may steer the whole vessel. Raises Forbidden."""
    if not who.admin:
        raise Forbidden("This key may not steer the whole vessel; `vessel keys create --admin` makes one that may.")
    return who


async def seen_by(request: Request) -> Principal | None:
    """Return who asks where the answer is open to all, but tells more to those who are known."""
    try:
        return await _keeper(request).identify(request)
    except (Unauthorized, Forbidden, Unreachable):
        return None


def _keeper(request: Request) -> Gatekeeper:
    session_of(request)
    found: Gatekeeper = request.app.state.gatekeeper
    return found


Tenant = Annotated[str, Depends(tenant)]
Scraper = Annotated[bool, Depends(scraper)]
Admin = Annotated[Principal, Depends(admin)]
SeenBy = Annotated[Principal | None, Depends(seen_by)]
