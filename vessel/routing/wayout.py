"""The failover vessel as the last hop of a chain, which only an outage leads to, or as the only one for images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vessel.errors import ContextLengthExceeded, UnsupportedContent
from vessel.jobs.model import Hop
from vessel.wire import Policy, Priority

if TYPE_CHECKING:
    from vessel.registry import Failover, Model
    from vessel.routing.needs import Needs
    from vessel.wire import Submission


def unaffordable(policy: Policy, failover: Failover) -> str:
    """Say why a job may not go there for its cost, or nothing: batch work needs a cap, and a price to hold it by."""
    if policy.priority is not Priority.BATCH:
        return ""
    if policy.max_cost_usd is None:
        return "Batch work goes to the failover model only with a cost cap (max_cost_usd)."
    if not failover.priced:
        return (
            f"The price of the failover model {failover.model.served_id} is not known, so batch work does not go "
            "there. Set VESSEL_FAILOVER_PRICE_INPUT and _OUTPUT."
        )
    return ""


class WayOut:
    """Where a request may go in an outage; `notes` say why not."""

    def __init__(self, submission: Submission, needs: Needs, tokens: int, failover: Failover | None) -> None:
        """Take the request, what it needs and its estimated prompt tokens."""
        self.policy, self.request = submission.policy, submission.request
        self.needs, self.tokens, self.failover = needs, tokens, failover
        self.notes: list[str] = []

    def hops(self, tier: str, *, alone: bool) -> list[Hop]:
        """Return the last hop, or none; `alone` where Groq serves nothing of the chain."""
        if self.failover is None:
            self.notes.append("no failover model is set (VESSEL_FAILOVER_MODEL), so an outage is waited out")
            return []
        model = self.failover.model
        cannot = self._missing(model)
        if cannot:
            self.notes.append(f"{model.id} is left out: {cannot}")
            return []
        dear = unaffordable(self.policy, self.failover)
        if dear:
            self.notes.append(dear.rstrip("."))
        return [] if alone and dear else [Hop(model.id, tier, f"{model.id} serves in an outage")]

    def only_hop(self, tier: str) -> Hop:
        """Return the hop of a request that nobody else serves; raise UnsupportedContent or ContextLengthExceeded."""
        if self.failover is None:
            raise RuntimeError("chosen without a failover model")
        model = self.failover.model
        dear = unaffordable(self.policy, self.failover)
        missing = self.needs.missing(model)
        if dear or missing:
            why = dear or f"{model.served_id} cannot do {' and '.join(missing)}."
            text = f"The request holds images, which only the failover model takes now. {why} Nothing was sent."
            raise UnsupportedContent(text, param="messages")
        if self._missing(model):
            text = f"The prompt has about {self.tokens} tokens, too many for {model.served_id}. Nothing was sent."
            raise ContextLengthExceeded(text, param="messages")
        return Hop(model.id, tier)

    def _missing(self, model: Model) -> str:
        missing = self.needs.missing(model)
        if missing:
            return f"it cannot do {' and '.join(missing)}"
        lacking = self.needs.tools_missing(model)
        if lacking:
            return f"it has no built-in tools ({', '.join(lacking)})"
        asked = self.request.max_completion_tokens or self.request.max_tokens or 1
        if self.tokens + min(asked, model.max_output) > model.context_window:
            return f"its window of {model.context_window} tokens is too small"
        return ""
