"""What a worker knows of how long answers are: read in the background, told after each answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel.gate.history import learned_cap, observe, read_history
from vessel.observe.logs import get_logger
from vessel.routing.output import default_output_tokens
from vessel.upstream.outcome import Outcome, Success

if TYPE_CHECKING:
    from collections.abc import Callable

    from vessel.gate.history import Histogram
    from vessel.keyspace.connect import AsyncRunner
    from vessel.keyspace.names import Keys
    from vessel.keyspace.script import Call as ScriptCall
    from vessel.registry import Model
    from vessel.usage.rows import Call

REFRESH_S = 5.0
CUT = "length"

log = get_logger(__name__)


class OutputHistory:
    """The histories of the models that this process calls, as last read; a plan never waits for them."""

    def __init__(self, runner: AsyncRunner, tell: Callable[[ScriptCall[Any]], None], keys: Keys, org: str) -> None:
        """Know nothing yet: every bound is the default until the first `refresh` after a model was asked for."""
        self._runner, self._tell, self._keys, self._org = runner, tell, keys, org
        self._known: dict[str, dict[str, dict[int, float]]] = {}

    def cap(self, kind: str | None, model: Model) -> int | None:
        """Return the learned bound for a kind of work; None where the default is to hold."""
        histories = self._known.setdefault(model.id, {})
        histogram: Histogram = histories.get(kind or "", {})
        return learned_cap(histogram, default_output_tokens(model))

    def note(self, kind: str | None, call: Call, outcome: Outcome) -> None:
        """Count an answer under its kind, None counting none; of a cut one this process learns at once.

        A job keeps an answer that a learned bound has cut, with `finish_reason` length, as it would at the default. The
        log names it, and no later one is bound below the default until the cut is forgotten.
        """
        if kind is None or not isinstance(outcome, Success):
            return
        default = default_output_tokens(call.model)
        tokens = outcome.usage.completion_tokens
        if outcome.finish_reason == CUT:
            learned = self.cap(kind, call.model)
            if learned is not None and call.output_tokens <= learned:
                log.warning("output.cut", job_id=call.job.id, model=call.model.id, kind=kind, cap=call.output_tokens)
            self._known.get(call.model.id, {}).pop(kind, None)
            tokens = 2 * default
        self._tell(observe(self._keys.output(self._org, call.model.id), kind, tokens))

    async def refresh(self) -> None:
        """Read the histories of the models that were asked for. Raises RedisUnreachable; what is known then stays."""
        models = list(self._known)
        if models:
            read = await self._runner.run_all([read_history(self._keys.output(self._org, model)) for model in models])
            self._known = self._known | dict(zip(models, read, strict=True))
