"""Redis loses its newest writes (power, failover) with a call under way: both calls of its job are accounted for."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.contract.books import Books, row
from tests.contract.world import ROW, TIER, as_json, charge
from vessel.control import set_budget
from vessel.gate.limiter import GiveBack
from vessel.jobs.steps import ORPHANED, UNKNOWN, Ending, Final, Start, Wait
from vessel.wire import JobState

if TYPE_CHECKING:
    import redis

    from vessel.gate.limiter import Charge
    from vessel.jobs.steps import Answer, Held

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")
WORST, COSTS = 1000, {"w/1": 300, "w/2": 70}


class Rewound(Books):
    """A world that can lose its newest writes."""

    def kept(self) -> dict[bytes, tuple[int, bytes]]:
        """Note every key."""
        return {key: (max(0, self.client.pttl(key)), self.client.dump(key)) for key in self.client.scan_iter()}

    def rewind(self, kept: dict[bytes, tuple[int, bytes]]) -> None:
        """Put every key back to what was noted."""
        self.client.delete(*self.client.scan_iter())
        for key, (life, value) in kept.items():
            self.client.restore(key, life, value)

    def dear(self) -> Charge:
        """Charge a call's worst case, 100 + 50 tokens."""
        return charge(100, 50, nano_usd=WORST, tpm=10_000)

    def begin(self, held: Held) -> Answer:
        """Start the attempt that follows those which the worker saw when it claimed."""
        number = len(held.job.attempts) + 1
        guess = row("0.000001", attempt=number, estimated=True)
        return self.run(self.store.start(held, Start(number, ROW, guess, TIER, self.dear(), 0)))

    def ends(self, held: Held, label: str = JobState.SUCCEEDED) -> tuple[Ending, Final]:
        """Build the ending of a call that used 50 tokens less than it reserved."""
        number, cost = len(held.job.attempts) + 1, COSTS[held.owner]
        booked = row(f"{Decimal(cost).scaleb(-9):f}", attempt=number)
        ending = Ending(number, label, f'{{"status":200,"cost_nano_usd":{cost}}}', booked, self.dear(),
                        GiveBack(output_tokens=50, nano_usd=WORST - cost))  # fmt: skip
        if label == JobState.SUCCEEDED:
            return ending, Final(JobState.SUCCEEDED, {"response": held.owner.encode()}, valid=True)
        return ending, Final(JobState.FAILED, {"reason": "r"})

    def over(self) -> tuple[int, int]:
        """Tell what the tenant has spent in nano-USD, and how many calls the gate takes to be under way."""
        spent = int(self.client.hget(self.keys.budget("t"), "day_nano"))
        return spent, self.client.zcard(self.gate().inflight)


@pytest.fixture
def books(redis_client: redis.Redis) -> Rewound:
    """Give an empty server with a budget that is far away."""
    books = Rewound(redis_client)
    books.run(set_budget(books.door, "t", day=Decimal(9)))
    return books


def doubled(books: Rewound, *, started: bool = True) -> tuple[Held, Held]:
    """Lose a claim and its start, and have the job claimed again; `started`: its second call has begun, too."""
    job = books.queued()
    kept = books.kept()
    first = books.claim(job, "w/1")
    assert books.begin(first).word == "started"
    books.rewind(kept)
    second = books.claim(job, "w/2")
    if started:
        assert books.begin(second).word == "started"
    return first, second


@pytest.mark.parametrize("earlier", [0, 1])
def test_two_calls_of_one_number_are_both_booked(books: Rewound, earlier: int) -> None:
    """The one that answers first is the result, the other one is orphaned; both are paid for, each once."""
    both = doubled(books)
    winner, loser = both[earlier], both[1 - earlier]
    for held, said in ((winner, "finished"), (loser, "late")) * 2:
        assert books.finish(held, books.ends(held)).word == said
    job = books.job(winner.job.id)
    assert (job.state, job.response) == (JobState.SUCCEEDED, winner.owner.encode())
    outcomes = {winner.owner: JobState.SUCCEEDED, loser.owner: ORPHANED}
    assert sorted(books.booked()) == [("1", outcomes["w/2"]), ("2", outcomes["w/1"])]
    assert all(as_json(entry["row"])["attempt"] == int(entry["call"][-1]) for entry in books.ledger())
    assert [(a.number, a.outcome, a.cost_nano_usd) for a in job.attempts] == [
        (1, outcomes["w/2"], COSTS["w/2"]), (2, outcomes["w/1"], COSTS["w/1"])]  # fmt: skip
    assert books.over() == (sum(COSTS.values()), 0)
    assert books.agree().calls == 2


def test_a_number_that_was_taken_since_the_claim_is_left_alone(books: Rewound) -> None:
    """The lost call fails between the second claim and its start: the second call has a row and a charge of its own."""
    first, second = doubled(books, started=False)
    assert books.finish(first, books.ends(first, "failed")).word == "superseded"
    for _ in range(2):
        assert books.begin(second).word == "started"
    assert books.over() == (COSTS["w/1"] + WORST, 1)
    assert books.finish(second, books.ends(second)).word == "finished"
    assert books.booked() == [("1", "failed"), ("2", JobState.SUCCEEDED)]
    assert books.over() == (sum(COSTS.values()), 0)


def test_the_other_call_is_unknown_until_it_ends(books: Rewound) -> None:
    """The winner books the call it finds under way, though its own number is the higher one."""
    first, second = doubled(books)
    books.finish(first, books.ends(first))
    assert books.booked() == [("2", JobState.SUCCEEDED), ("1", UNKNOWN)]
    books.finish(second, books.ends(second))
    assert books.booked() == [("2", JobState.SUCCEEDED), ("1", ORPHANED)]


def test_a_killed_second_call_is_rescued_with_its_own_number(books: Rewound) -> None:
    """The first one failed under the next number; the rescue books the second one, which holds no place at the gate."""
    first, second = doubled(books)
    books.run(books.store.park(first, books.ends(first, "failed")[0], 0, Wait(60_000, "r")))
    books.run(books.lapsing.renew([second]))
    assert books.rescue(second.job).word == "done"
    assert books.booked() == [("2", "failed"), ("1", UNKNOWN)]
    assert books.over() == (COSTS["w/1"] + WORST, 0)
    assert books.job(second.job.id).kills == 1


def test_both_calls_of_a_lost_record_are_booked(books: Rewound) -> None:
    """Nothing is left of the job but the two that call for it: a stub keeps them apart."""
    first, second = doubled(books)
    books.client.delete(books.keys.job(first.job.id), books.keys.events(first.job.id))
    for held in (first, second) * 2:
        assert books.finish(held, books.ends(held)).word == "missing"
    assert books.booked() == [("1", ORPHANED), ("2", ORPHANED)]


def test_a_number_of_a_worker_before_this_version_is_its_own(books: Rewound) -> None:
    """Its start has not said whose the number is; whoever comes with it and has none there takes the next one."""
    first, _ = doubled(books)
    books.client.hdel(books.keys.job(first.job.id), "by:1")
    books.finish(first, books.ends(first))
    assert books.booked() == [("2", JobState.SUCCEEDED), ("1", UNKNOWN)]
