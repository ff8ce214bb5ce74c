"""The console's look at the backlog: all of a small one, parts of a large one, and nothing that is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel.api.backlog import FLOWS_AT_ONCE, HEADS_AT_ONCE, Backlog
from vessel.client.gates import Flow
from vessel.client.steps import Run, drive
from vessel.settings import load_settings
from vessel.submit import Door

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.client.steps import Effect

GROUP = "2|m/large"


class Queue:
    """A backlog that answers as Redis does: groups, their flows by rank, and jobs of each; commands are counted."""

    def __init__(self, flows: int) -> None:
        """Let as many tenants wait with two jobs each."""
        self.door = Door(load_settings({}, redis_url="redis://localhost"))
        self.groups = {GROUP: {f"power.batch|t{n}": ["first", "second"] for n in range(flows)}}
        self.sent = 0

    def look(self, backlog: Backlog) -> list[Flow]:
        """Look once."""

        def perform(effect: Effect) -> Any:
            assert isinstance(effect, Run)
            self.sent += len(effect.calls)
            return [call.parse(self._answer(call.command)) for call in effect.calls]

        drive(backlog.look(), perform)
        return backlog.flows

    def _answer(self, command: Sequence[Any]) -> Any:
        flows = {self.door.keys.flows(group): list(flows) for group, flows in self.groups.items()}
        jobs = {
            self.door.keys.backlog(group, flow): jobs
            for group, some in self.groups.items()
            for flow, jobs in some.items()
        }
        match command:
            case ("SMEMBERS", _):
                return {group.encode() for group in self.groups}
            case ("ZCARD", key):
                return len(flows.get(key) or jobs.get(key) or ())
            case ("ZRANGE", key, start, stop):
                return [name.encode() for name in (flows.get(key) or jobs.get(key) or [])[start : stop + 1]]
            case _:
                return [b"1000", b"20", b"500"]


def test_a_small_backlog_is_told_as_it_is() -> None:
    """Each look counts all flows and reads their first jobs."""
    queue = Queue(2)
    backlog = Backlog(queue.door)
    assert queue.look(backlog) == [Flow(2, "m/large", "power.batch", f"t{n}", 2, 1000, 520) for n in range(2)]
    queue.groups[GROUP]["power.batch|t0"].pop()
    del queue.groups[GROUP]["power.batch|t1"]
    assert [(flow.tenant, flow.jobs) for flow in queue.look(backlog)] == [("t0", 1)]
    queue.groups.clear()
    assert queue.look(backlog) == []


def test_a_backlog_of_many_tenants_is_read_in_turns() -> None:
    """A look reads its part; after as many as it takes all are known, and those that went are forgotten."""
    queue = Queue(3 * FLOWS_AT_ONCE - 5)
    backlog = Backlog(queue.door)
    known = [len(queue.look(backlog)) for _ in range(3)]
    assert known == [FLOWS_AT_ONCE, 2 * FLOWS_AT_ONCE, 3 * FLOWS_AT_ONCE - 5]
    assert queue.sent < 3 * 2 * FLOWS_AT_ONCE
    queue.groups[GROUP] = {name: jobs for name, jobs in queue.groups[GROUP].items() if not name.endswith("7")}
    for _ in range(3 * FLOWS_AT_ONCE // HEADS_AT_ONCE):
        queue.look(backlog)
    flows = queue.look(backlog)
    assert sorted(flow.tenant for flow in flows) == sorted(name.partition("|")[2] for name in queue.groups[GROUP])
    assert all(flow.tokens == 520 for flow in flows)
