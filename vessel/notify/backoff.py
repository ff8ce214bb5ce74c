"""What follows from an attempt to deliver a webhook: done, again after a while, or given up. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DELAYS_S: Final = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Standard Webhooks' schedule: how long after each failed attempt the next one follows, ten attempts in three days."""

ATTEMPTS = len(DELAYS_S) + 1
JITTER = 0.2
LONGEST_S = 86_400.0
"""A receiver may ask to be left alone for so long at most."""

GONE = 410
ASKS_TO_WAIT = frozenset({429, 503})


class DeliveryState(StrEnum):
    """Where a webhook stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


class Trouble(StrEnum):
    """Why an attempt did not deliver; empty where it did."""

    NONE = ""
    STATUS = "status"
    REDIRECT = "redirect"
    GONE = "gone"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    DNS = "dns"
    PROTOCOL = "protocol"
    ADDRESS_REFUSED = "address_refused"


TEXTS: Final = {
    Trouble.NONE: "delivered",
    Trouble.STATUS: "the receiver answered with an error",
    Trouble.REDIRECT: "the receiver answered with a redirect, which is not followed; give its final address",
    Trouble.GONE: "the receiver answered 410 Gone: it wants no more of this",
    Trouble.TIMEOUT: "the receiver did not answer in time",
    Trouble.CONNECTION: "no connection came about, or it broke",
    Trouble.TLS: "the receiver's certificate is not valid for its name",
    Trouble.DNS: "the receiver's name has no address",
    Trouble.PROTOCOL: "what the receiver answered is not HTTP",
    Trouble.ADDRESS_REFUSED: "the receiver's name leads to a private or special address, where nothing is sent",
}
FINAL = frozenset({Trouble.GONE, Trouble.ADDRESS_REFUSED})


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended."""

    trouble: Trouble
    status: int | None = None
    retry_after_s: float | None = None
    duration_ms: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What follows: an end, or the next attempt after `delay_ms`."""

    state: DeliveryState
    delay_ms: int = 0


def trouble_of(status: int) -> Trouble:
    """Read a receiver's status: 2xx alone is a success."""
    match status // 100:
        case 2:
            return Trouble.NONE
        case 3:
            return Trouble.REDIRECT
        case _:
            return Trouble.GONE if status == GONE else Trouble.STATUS


def follow(outcome: Outcome, attempts: int, jitter: float) -> Step:
    """Decide after a number of attempts, this one among them; `jitter` is a random number from 0 to 1."""
    if outcome.trouble is Trouble.NONE:
        return Step(DeliveryState.DELIVERED)
    if outcome.trouble in FINAL or attempts >= ATTEMPTS:
        return Step(DeliveryState.GIVEN_UP)
    delay = DELAYS_S[attempts - 1] * (1 - JITTER / 2 + JITTER * jitter)
    if outcome.status in ASKS_TO_WAIT and outcome.retry_after_s is not None:
        delay = max(delay, min(outcome.retry_after_s, LONGEST_S))
    return Step(DeliveryState.PENDING, int(delay * 1000))
