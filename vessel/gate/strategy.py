"""A model's gate as a strategy of `limits`: whatever speaks `limits` sees and takes what the workers do.

    storage = storage_from_string("redis://localhost:6379/0")
    gate = GateStrategy(storage, Keys("vessel"))
    gate.get_window_stats(items_of(limits)["tpm"], "default", "openai/gpt-oss-120b")

An item's namespace is one of limiter.NAMES, its identifiers are organisation and model. It is about quota alone: what
maintenance, breakers, concurrency and budgets hold back is in `view`. Where Groq told another limit than the item's
amount, that one counts, as it does for the workers. Time is Redis', never this process'.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

from limits.storage import RedisStorage
from limits.strategies import RateLimiter
from limits.util import WindowStats

from vessel.gate.limiter import NAMES, PERIOD_MS, cost_of
from vessel.gate.view import look
from vessel.keyspace.connect import SyncRunner
from vessel.keyspace.names import gate_keys
from vessel.keyspace.script import Arg, Call, load, word

if TYPE_CHECKING:
    import redis
    from limits import RateLimitItem

    from vessel.gate.view import GateView
    from vessel.keyspace.names import GateKeys, Keys

TAKEN = "taken"


class GateStrategy(RateLimiter):
    """Reads and takes from the buckets of the gates. Its methods raise RedisUnreachable or RedisRefused."""

    def __init__(self, storage: RedisStorage, keys: Keys) -> None:
        """Use the storage's client; `keys` are those of the vessel's namespace. Nothing is asked yet."""
        if not isinstance(storage, RedisStorage):
            raise TypeError(f"The gate lives in Redis, and {type(storage).__name__} does not. Give a RedisStorage.")
        super().__init__(storage)
        self._keys = keys
        self._runner = SyncRunner(cast("redis.Redis", storage.get_connection()))

    def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Take from a bucket, atomically: the whole cost, or nothing where less is free."""
        return self._runner.run(self._take(item, identifiers, cost=_checked(cost))) == TAKEN

    def test(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Tell whether a hit would take, without taking."""
        return _checked(cost) <= _free(self._view(item, identifiers), item.namespace)

    def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        """Return when the bucket is full again, in epoch seconds, and what a hit can take now; changes nothing."""
        view = self._view(item, identifiers)
        full_at_s = view.now / 1000 + max(0.0, view.limits[item.namespace].full_in_s)
        return WindowStats(full_at_s, _free(view, item.namespace))

    def clear(self, item: RateLimitItem, *identifiers: str) -> None:
        """Fill a bucket up, as if nothing had been used; a call that waits for it is woken."""
        self._runner.run(self._take(item, identifiers, fill=True))

    def _view(self, item: RateLimitItem, identifiers: tuple[str, ...]) -> GateView:
        keys = self._gate(item, identifiers)
        return self._runner.run(look(keys, " ".join(str(item.amount) if n == item.namespace else "0" for n in NAMES)))

    def _take(
        self, item: RateLimitItem, identifiers: tuple[str, ...], *, cost: int = 0, fill: bool = False
    ) -> Call[str]:
        keys = self._gate(item, identifiers)
        args: dict[str, Arg] = {
            "limit": item.namespace,
            "amount": item.amount,
            "cost": cost,
            "fill": "1" if fill else "",
        }
        return load("take").call({"gate": keys.gate, "bookings": keys.bookings}, args, word)

    def _gate(self, item: RateLimitItem, identifiers: tuple[str, ...]) -> GateKeys:
        name = item.namespace
        if name not in NAMES or item.get_expiry() * 1000 != PERIOD_MS[name]:
            raise ValueError(
                f"{item!r} in the namespace {name!r} is no limit of the gate, which has {', '.join(NAMES)}, per minute "
                "or per day. Make the items with items_of(limits)."
            )
        if len(identifiers) != len(("org", "model")):
            raise ValueError("A gate is named by two identifiers: the organisation and the model.")
        org, model = identifiers
        return gate_keys(self._keys, org, model, "*")


def _checked(cost: int) -> int:
    if cost < 0:
        raise ValueError("A cost is not below zero; what a call did not use comes back when it is settled.")
    return cost


def _free(view: GateView, name: str) -> int:
    """Return the largest cost that take.lua takes now."""
    level = view.limits[name]
    booked = sum(cost_of(name, *lane) for lane in view.booked)
    left = level.left - booked
    return level.capacity if left >= level.capacity else max(0, math.floor(left - level.margin))
