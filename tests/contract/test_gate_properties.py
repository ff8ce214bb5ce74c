"""Random arrivals under a clock of ours: no limit below zero by a start, and nobody refused whom the rules admit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import fakeredis
import time_machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.world import World, charge, success
from vessel.gate.limiter import NAMES, PERIOD_MS, Charge, GiveBack
from vessel.wire import Priority

if TYPE_CHECKING:
    from vessel.jobs.steps import Held

LIMITS = {"rpm": 20, "rpd": 100, "tpm": 1_000, "tpd": 30_000, "itpm": 700, "otpm": 600}
EPSILON = 1e-3
SOME_DAY = 1_800_000_000.0


@dataclass
class Buckets:
    """The same limits, counted in Python: capacity, continuous refill, all or nothing."""

    levels: dict[str, float] = field(default_factory=lambda: {name: float(cap) for name, cap in LIMITS.items()})
    at_ms: int = 0

    def pass_time(self, now_ms: int) -> None:
        """Refill."""
        for name, cap in LIMITS.items():
            self.levels[name] = min(cap, self.levels[name] + (now_ms - self.at_ms) * cap / PERIOD_MS[name])
        self.at_ms = now_ms

    def admits(self, of: Charge) -> bool:
        """Tell whether all limits have room."""
        return all(self.levels[name] >= of.cost(name) - EPSILON for name in LIMITS)

    def surely_admits(self, of: Charge) -> bool:
        """Tell the same of what is not a matter of the last digit."""
        return all(self.levels[name] >= of.cost(name) + EPSILON for name in LIMITS)

    def take(self, of: Charge, back: GiveBack | None = None) -> None:
        """Charge, or give back."""
        for name, cap in LIMITS.items():
            given = Charge("", "", (), back.prompt_tokens, back.output_tokens).cost(name) if back else of.cost(name)
            given = given * (back.requests if name in {"rpm", "rpd"} else 1) if back else given
            self.levels[name] = min(cap, self.levels[name] + given) if back else self.levels[name] - given


def frozen_world() -> World:
    """Make a store on a fakeredis of its own, whose clock is Python's."""
    return World(fakeredis.FakeRedis(server=fakeredis.FakeServer()))


ARRIVALS = st.lists(
    st.tuples(st.integers(0, 20_000), st.integers(1, 500), st.integers(0, 500), st.floats(0, 1)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(ARRIVALS)
def test_one_lane_is_admitted_exactly_as_the_buckets_say(arrivals: list[tuple[int, int, int, float]]) -> None:
    """Admitted when all six limits have room, refused when one has not, for exactly as long as that lasts."""
    with time_machine.travel(SOME_DAY, tick=False) as clock:
        world, model = frozen_world(), Buckets(at_ms=int(SOME_DAY * 1000))
        for passed, prompt, output, used in arrivals:
            clock.shift(passed / 1000)
            model.pass_time(world.now_ms())
            of, held = charge(prompt, output, **LIMITS), world.running()  # type: ignore[arg-type]
            answer = world.start(held, 1, of)
            if answer.word == "started":
                assert model.admits(of)
                model.take(of)
                back = GiveBack(0, 0, int(output * used))
                world.finish(held, success(1, charge=of, back=back))
                model.take(of, back)
            else:
                assert answer.word == "wait"
                assert not model.surely_admits(of)
                clock.shift(int(answer.detail) / 1000)
                model.pass_time(world.now_ms())
                assert model.admits(of)
                assert world.start(held, 1, of).word == "started"
                model.take(of)
            assert min(model.levels.values()) >= -EPSILON


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5_000),
            st.integers(1, 500),
            st.integers(0, 500),
            st.sampled_from(list(Priority)),
            st.booleans(),
        ),
        min_size=1,
        max_size=25,
    )
)
def test_no_limit_is_passed_whatever_the_lanes_and_bookings(
    arrivals: list[tuple[int, int, int, Priority, bool]],
) -> None:
    """Every start that any lane is given fits into all six limits; and every one comes in the end."""
    with time_machine.travel(SOME_DAY, tick=False) as clock:
        world, model = frozen_world(), Buckets(at_ms=int(SOME_DAY * 1000))
        waiting: list[tuple[Held, Charge]] = []

        def ask(held: Held, of: Charge, book_ms: int) -> bool:
            model.pass_time(world.now_ms())
            if world.start(held, 1, of, book_ms=book_ms).word != "started":
                return False
            assert model.admits(of)
            model.take(of)
            return True

        for passed, prompt, output, lane, books in arrivals:
            clock.shift(passed / 1000)
            of, held = charge(prompt, output, **LIMITS), world.running(priority=lane)  # type: ignore[arg-type]
            if not ask(held, of, 2_000 if books else 0):
                waiting.append((held, of))
            waiting = [entry for entry in waiting if not ask(*entry, 2_000)]
        for _ in range(40):
            clock.shift(60)
            waiting = [entry for entry in waiting if not ask(*entry, 2_000)]
        assert waiting == []


def test_the_six_limits_are_those_of_the_gate() -> None:
    """A new limit cannot be forgotten here."""
    assert set(LIMITS) == set(NAMES)
