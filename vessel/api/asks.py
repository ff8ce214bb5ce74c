"""From a request's body to what Vessel's door takes: the policy beside the body, and the idempotency key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Header, Request

from vessel.api.bodies import Body, JsonBody
from vessel.client.request import Ask
from vessel.errors import InvalidRequest
from vessel.upstream.openai import HOP_HEADER

if TYPE_CHECKING:
    from collections.abc import Mapping

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The same key and body are the same job for as long as it is kept.",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
    ),
]
RetryCount = Annotated[
    str | None,
    Header(
        alias="x-stainless-retry-count",
        description="Sent by the SDKs. Above 0 the request attaches to the job that the first one made.",
    ),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What came in: the body, the headers that say how to take it."""

    body: Body
    idempotency_key: str | None
    repeated: bool

    def ask(self, **defaults: Any) -> Ask:
        """Part the policy from the body; `defaults` count where the caller says nothing. A header's key wins."""
        plain = {name: value for name, value in self.body.value.items() if name != "vessel"}
        given = self.body.value.get("vessel")
        if given is not None and not isinstance(given, dict):
            raise InvalidRequest("vessel: it must be an object.", param="vessel")
        policy = defaults | (given or {})
        if self.idempotency_key is not None:
            policy["idempotency_key"] = self.idempotency_key
        return Ask(plain, policy)


def refuse_loops(headers: Mapping[str, str]) -> None:
    """Refuse a call that a Vessel makes to its failover endpoint: it would come back to where it started."""
    if HOP_HEADER in headers:
        raise InvalidRequest(
            "This call comes from a Vessel whose failover endpoint leads to a Vessel, so nothing was enqueued. Set "
            "OPENAI_BASE_URL there to another endpoint.",
            param=HOP_HEADER,
        )


async def read(
    request: Request, body: JsonBody, idempotency_key: IdempotencyKey = None, retry_count: RetryCount = None
) -> Asked:
    """Read a request that makes a job."""
    refuse_loops(request.headers)
    repeated = retry_count is not None and retry_count.isdecimal() and int(retry_count[:9]) > 0
    return Asked(body, idempotency_key, repeated)


JobRequest = Annotated[Asked, Depends(read)]
