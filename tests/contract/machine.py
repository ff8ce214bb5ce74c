"""A model of the state table, and a Hypothesis machine that plays it against the scripts.

Several workers hold handles, fresh and stale; tickets are delivered late, twice or never; any call may be repeated. The
model says what each call answers; the invariants say what must hold whatever was called.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.contract.promises import Promises
from tests.contract.shadow import Handle, Shadow
from tests.contract.world import OTHER_TIER, TIER, UNKNOWN_ROW, World, charge, cut, failure, success
from tests.waiting import wait_until
from vessel.jobs.steps import NO_ATTEMPT, ORPHANED, Answer, Ending, Feed, Final, Held, Issue, Start, Wait
from vessel.jobs.store import MAX_KILLS, MAX_LAPSES
from vessel.keyspace.names import Keys
from vessel.wire import JobState

if TYPE_CHECKING:
    from vessel.jobs.model import Job
    from vessel.keyspace.script import Call

MOST_JOBS, MOST_OPEN = 8, 2
PICK = st.sampled_from([0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 6, 9])
"""Counted back from the newest: what is recent is the most likely to matter."""

REPEATED = st.booleans()
SELDOM = st.sampled_from([False, False, False, True])
"""For what ends a job: the longer jobs live, the more can go wrong with them."""


class JobMachine(Promises):
    """Random work of several workers and sweeps on a few jobs."""

    @initialize()
    def open_world(self) -> None:
        """Start with an empty namespace."""
        self.client.flushall()
        self.world = World(self.client, Keys("machine"))
        self.jobs: list[Shadow] = []
        self.handles: list[Handle] = []
        self.tickets: list[tuple[Shadow, int, str]] = []
        self.keys: dict[str, tuple[str, str]] = {}
        self.ends: dict[str, tuple[Any, ...] | None] = {}
        self.rows: dict[str, dict[bytes, bytes]] = {}
        self.owners = 0

    # --- how rules speak ------------------------------------------------------------------------------------------

    def say(self, call: Call[Any], *, repeated: bool) -> Any:
        """Run a call; repeated, it must change nothing the second time."""
        answer = self.world.run(call)
        if repeated:
            before = self.world.everything()
            self.world.run(call)
            assert self.world.everything() == before, f"repeating {call.script and call.script.name} changed something"
        return answer

    def job(self, pick: int) -> tuple[Shadow, Job]:
        """Pick a job."""
        shadow = self.jobs[-1 - pick % len(self.jobs)]
        return shadow, self.world.job(shadow.id)

    def handle(self, pick: int) -> tuple[Handle, Shadow, bool]:
        """Pick a handle, the job it is about, and whether it is current."""
        handle = self.handles[-1 - pick % len(self.handles)]
        shadow = self.shadow(handle.id)
        mine = (shadow.generation, shadow.owner) == (handle.held.generation, handle.held.owner)
        return handle, shadow, mine and shadow.state is JobState.RUNNING

    def shadow(self, job_id: str) -> Shadow:
        """Find what the model believes about a job."""
        return next(shadow for shadow in self.jobs if shadow.id == job_id)

    def issue(self, shadow: Shadow) -> None:
        """Note a ticket; it may be delivered any number of times from now on."""
        self.tickets.append((shadow, shadow.generation, shadow.queue))

    # --- producers ------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.jobs) < MOST_JOBS and sum(s.open for s in self.jobs) < MOST_OPEN)
    @rule(key=st.sampled_from(["", "", "a", "b"]), content=st.sampled_from("xy"), late=SELDOM, repeated=REPEATED)
    def create(self, key: str, content: str, *, late: bool, repeated: bool) -> None:
        """Create, with a key that may be taken."""
        new = self.world.new(idempotency_key=key or None, body_hash=content, deadline_ms=1 if late else 0)
        answer = self.say(self.world.store.create(new, TIER, issue=Issue.TICKET), repeated=repeated)
        if key and key in self.keys:
            holder, kept = self.keys[key]
            assert answer == Answer("exists" if kept == content else "conflict", holder)
            return
        assert answer == Answer("created", new.id)
        self.keys[key] = (new.id, content)
        waits = any(shadow.backlog for shadow in self.jobs)  # then it does not overtake
        self.jobs.append(Shadow(new.id, late, backlog=waits))
        if not waits:
            self.issue(self.jobs[-1])

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, repeated=REPEATED, really=SELDOM)
    def cancel(self, pick: int, *, repeated: bool, really: bool) -> None:
        """Cancel: at once while it waits, by a flag while it runs."""
        shadow, job = self.job(pick)
        if shadow.open and not really:
            return
        said = self.say(self.world.store.cancel(job), repeated=repeated).word
        if shadow.state is JobState.RUNNING:
            assert said == "flagged"
            shadow.cancel = True
        else:
            assert said == ("closed" if shadow.open else "terminal")
            self._close(shadow, JobState.CANCELLED)

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK)
    def expire(self, pick: int) -> None:
        """Expire: only what waits and whose deadline has passed, however long the sweep takes to look."""
        shadow, job = self.job(pick)
        waiting = shadow.has_deadline and shadow.open and shadow.state is not JobState.RUNNING
        if waiting:
            wait_until(lambda: self.world.run(self.world.store.expire(job)).word == "closed")
            self._close(shadow, JobState.EXPIRED)
        else:
            said = self.say(self.world.store.expire(job), repeated=False).word
            assert said in ("early", "terminal")

    def _close(self, shadow: Shadow, state: JobState) -> None:
        if shadow.open:
            shadow.leave(state)
            shadow.generation += 1

    # --- workers --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.tickets)
    @rule(pick=PICK, lapsed=st.booleans(), repeated=REPEATED, begin=st.booleans())
    def claim(self, pick: int, *, lapsed: bool, repeated: bool, begin: bool) -> None:
        """Deliver a ticket, old or new, to a worker that has not been seen before; it may start at once."""
        shadow, generation, queue = self.tickets[-1 - pick % len(self.tickets)]
        self.owners += 1
        owner = f"w/{self.owners}"
        store = self.world.lapsing if lapsed else self.world.store
        held = self.say(store.claim(shadow.id, generation, queue, owner), repeated=repeated)
        fresh = shadow.state is JobState.QUEUED and shadow.generation == generation
        assert isinstance(held, Held) == fresh, held
        if isinstance(held, Held):
            assert held.generation == generation + 1
            shadow.state, shadow.generation, shadow.owner = JobState.RUNNING, generation + 1, owner
            shadow.lapsed = lapsed
            self.handles.append(Handle(held, generation, queue))
            if begin:
                self._start(0, repeated=repeated)

    @precondition(lambda self: self.handles)
    @rule(pick=PICK)
    def claim_again(self, pick: int) -> None:
        """Send a claim a second time, maybe much later: it is the same claim or none."""
        handle, _, current = self.handle(pick)
        again = self.world.run(self.world.store.claim(handle.id, handle.ticket, handle.queue, handle.held.owner))
        assert isinstance(again, Held) == current
        assert not isinstance(again, Held) or again.generation == handle.held.generation

    @precondition(lambda self: self.handles)
    @rule(pick=PICK, repeated=REPEATED)
    def start(self, pick: int, *, repeated: bool) -> None:
        """Start the attempt that follows those the worker saw when it claimed."""
        self._start(pick, repeated=repeated)

    def _start(self, pick: int, *, repeated: bool) -> None:
        handle, shadow, current = self.handle(pick)
        number = len(handle.held.job.attempts) + 1
        row = '{"model":"m","tier":"t","worker":"w","worst_nano_usd":1}'
        start = Start(number, row, UNKNOWN_ROW, TIER, charge(rpd=10**6), book_ms=0)
        call = self.world.store.start(handle.held, start)
        said = self.say(call, repeated=repeated).word
        if not current:
            assert said == "superseded"
        elif shadow.started == number:
            assert said == "started"
        elif shadow.cancel:
            assert said == "cancel_requested"
        else:
            assert said == "started"
            shadow.started = handle.attempt = number

    @precondition(lambda self: self.handles)
    @rule(lapsed=st.booleans())
    def renew(self, *, lapsed: bool) -> None:
        """Renew all handles at once: of each job at most one is current."""
        store = self.world.lapsing if lapsed else self.world.store
        said = self.world.run(store.renew([handle.held for handle in self.handles]))
        for at in range(len(self.handles)):
            _, shadow, current = self.handle(len(self.handles) - 1 - at)
            assert said[at] == ("lost" if not current else "cancel" if shadow.cancel else "ok")
            shadow.lapsed = lapsed if current else shadow.lapsed

    @precondition(lambda self: self.handles)
    @rule(pick=PICK, repeated=REPEATED)
    def finish(self, pick: int, *, repeated: bool) -> None:
        """Bring the answer of a started call, in time or late."""
        handle, _, _ = self.handle(pick)
        if handle.attempt:
            text = f"{handle.id}/{handle.attempt}/{handle.held.owner}".encode()
            ending, final = success(handle.attempt, text)
            self._finish(pick, ending, final, repeated=repeated)

    @precondition(lambda self: self.handles)
    @rule(pick=PICK, unknown=st.booleans(), repeated=REPEATED, really=SELDOM)
    def fail(self, pick: int, *, unknown: bool, repeated: bool, really: bool) -> None:
        """End a job without a result: after a call, or before one."""
        handle, _, current = self.handle(pick)
        if current and not really:
            return
        ending = self._ending(handle, "unknown" if unknown else "refused")
        self._finish(pick, ending, Final(JobState.FAILED, {"reason": "r"}), repeated=repeated)

    def _finish(self, pick: int, ending: Ending, final: Final, *, repeated: bool) -> None:
        handle, shadow, current = self.handle(pick)
        said = self.say(self.world.store.finish(handle.held, ending, final), repeated=repeated)
        used = shadow.open and (final.valid or current)
        shadow.end_attempt(ending, ORPHANED if final.valid and not used else ending.label)
        if used:
            if not current:
                shadow.cut_call()
            shadow.leave(final.state)
            shadow.generation += 1
            shadow.ended_by = handle.held.owner
            shadow.response = final.fields.get("response")  # type: ignore[assignment]
        elif shadow.ended_by != handle.held.owner:
            assert said == Answer("superseded" if shadow.open else "late", shadow.state)
            return
        assert said == Answer("finished", shadow.state)

    def _ending(self, handle: Handle, kind: str) -> Ending:
        if not handle.attempt:
            return NO_ATTEMPT
        if kind == "unknown":
            return cut(handle.attempt)
        return (failure if kind == "refused" else success)(handle.attempt)[0]

    @precondition(lambda self: self.handles)
    @rule(
        pick=PICK,
        kind=st.sampled_from(["unknown", "refused", "charged"]),
        repeated=REPEATED,
        for_gate=st.booleans(),
        look=st.booleans(),
    )
    def park(self, pick: int, kind: str, *, repeated: bool, for_gate: bool, look: bool) -> None:
        """Let a job wait for a time or for the gate, with its call's ending if it made one."""
        handle, shadow, current = self.handle(pick)
        ending = self._ending(handle, kind)
        wait = Wait(1, "r", "", for_gate, int(look))
        call = self.world.store.park(handle.held, ending, 0, wait)
        said = self.say(call, repeated=repeated).word
        shadow.end_attempt(ending, ending.label)
        assert said == ("done" if current else "superseded")
        if current:
            shadow.park(for_gate=for_gate, look=look)
            shadow.queue = handle.held.job.queue

    @precondition(lambda self: self.handles)
    @rule(pick=PICK, kind=st.sampled_from(["unknown", "refused", "charged"]), repeated=REPEATED)
    def send_on(self, pick: int, kind: str, *, repeated: bool) -> None:
        """Requeue after a call, release before one."""
        handle, shadow, current = self.handle(pick)
        ending, store = self._ending(handle, kind), self.world.store
        onward = store.requeue(handle.held, ending, 1, OTHER_TIER, reason="r", message="")
        said = self.say(onward if ending.number else store.release(handle.held), repeated=repeated).word
        shadow.end_attempt(ending, ending.label)
        assert said == ("done" if current else "superseded")
        if current:
            shadow.leave(JobState.QUEUED)
            shadow.queue = OTHER_TIER if ending.number else handle.held.job.queue
            self.issue(shadow)

    # --- sweeps ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK)
    def promote(self, pick: int) -> None:
        """Promote what waits for its time, once that has come; who waits in the backlog already is let out to look."""
        shadow, job = self.job(pick)
        said = wait_until(lambda: self.world.run(self.world.store.promote(job)).word.replace("early", ""))
        assert said == ("done" if shadow.due else "stale")
        if said == "done":
            looks = shadow.backlog or shadow.cancel
            shadow.leave(JobState.QUEUED)
            shadow.backlog = not looks
            if looks:
                self.issue(shadow)

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, repeated=REPEATED)
    def feed(self, pick: int, *, repeated: bool) -> None:
        """Give a job its ticket out of the backlog; one that is not there is left alone."""
        shadow, job = self.job(pick)
        said = self.say(self.world.store.feed(job, self.world.gate(), Feed(3)), repeated=repeated).word
        assert said == ("done" if shadow.backlog else "stale")
        if said == "done":
            shadow.leave(JobState.QUEUED)
            self.issue(shadow)

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, stale=st.booleans(), repeated=REPEATED)
    def reissue(self, pick: int, *, stale: bool, repeated: bool) -> None:
        """Issue a ticket anew; a sweep that read an older state of things issues nothing."""
        shadow, job = self.job(pick)
        issued = int(self.client.zscore(self.world.keys.tickets(job.queue), job.id) or 0)
        seen = replace(job, generation=job.generation - 1) if stale else job
        said = self.say(self.world.store.reissue(seen, job.queue, issued), repeated=repeated).word
        assert said == ("done" if shadow.state is JobState.QUEUED and not shadow.backlog and not stale else "stale")
        if said == "done":
            shadow.generation += 1
            self.issue(shadow)

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, repeated=REPEATED)
    def rescue(self, pick: int, *, repeated: bool) -> None:
        """Take a job back whose lease is over."""
        shadow, job = self.job(pick)
        said = self.say(self.world.store.rescue(job), repeated=repeated).word
        if shadow.state is not JobState.RUNNING:
            assert said == "stale"
        elif not shadow.lapsed:
            assert said == "held"
        else:
            shadow.kills += shadow.cut_call()
            shadow.lapses += 1
            shadow.generation += 1
            poisoned = shadow.kills == MAX_KILLS or shadow.lapses == MAX_LAPSES
            shadow.leave(JobState.FAILED if poisoned else JobState.QUEUED)
            assert said == ("poisoned" if poisoned else "done")
            if not poisoned:
                self.issue(shadow)

    @precondition(lambda self: self.handles)
    @rule(pick=PICK, begin=st.booleans())
    def overtake(self, pick: int, *, begin: bool) -> None:
        """Let a worker that holds a job stand still until another one has it: what the first one does next is late."""
        _, shadow, current = self.handle(pick)
        if not current:
            return
        self.renew(lapsed=True)
        self.rescue(len(self.jobs) - 1 - self.jobs.index(shadow), repeated=False)
        if shadow.open:
            self.claim(0, lapsed=False, repeated=False, begin=begin)
