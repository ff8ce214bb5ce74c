"""What holds everybody up: outages, dead models, used-up days, bad keys, maintenance, a killed feeder. No job pays."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
from groq_vessel import GroqClient

from bench.stack import KEY, Stack
from tests.chaos.judge import judge, read_jobs, read_ledger
from tests.chaos.test_kill_campaign import REGISTRY, lift_limits
from vessel.control import clear_maintenance, set_maintenance
from vessel.keyspace.connect import SyncRunner, connect
from vessel.keyspace.script import word
from vessel.submit import Door
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vessel.jobs.model import Job

POWER, OTHER = "openai/gpt-oss-120b", "openai/gpt-oss-20b"


def stack_for(folder: Path, *, latency_ms: int = 20, told: bool = True, **env: str) -> Stack:
    """Describe a stack; `told`: the workers know limits that are out of the way."""
    registry = folder / "registry.toml"
    registry.write_text(REGISTRY if told else "", "utf-8")
    return Stack(folder, simulator=["--latency-ms", str(latency_ms)], lease_s=3.0, VESSEL_REGISTRY=str(registry), **env)


def requests(count: int, **policy: Any) -> list[dict[str, Any]]:
    """Write requests for one model alone."""
    kept = {"tier": "power", "fallback": "none"} | policy
    return [{"messages": [{"role": "user", "content": f"Number {n}?"}], "vessel": kept} for n in range(count)]


class Case:
    """A running stack with a client, and what a test asks about it."""

    def __init__(self, stack: Stack, client: GroqClient) -> None:
        """Connect."""
        self.stack, self.client = stack, client
        self.redis = connect(stack.redis.url)
        self.runner = SyncRunner(self.redis)
        self.door = Door(stack.settings())
        self.ids: list[str] = []

    def submit(self, lines: Sequence[dict[str, Any]]) -> None:
        """Submit."""
        self.ids += [handle.id for handle in self.client.submit_many(list(lines))]

    def jobs(self) -> list[Job]:
        """Read all jobs."""
        return [job for job in read_jobs(self.stack.redis.url, self.stack.namespace, self.ids) if job is not None]

    def done(self) -> int:
        """Count the jobs with a result."""
        return sum(job.state is JobState.SUCCEEDED for job in self.jobs())

    def calls(self) -> int:
        """Count the calls the simulator has seen."""
        return int(self.stack.ask("/_sim/stats")["calls"])

    def gate(self, field: str, *, provider: bool = False) -> str:
        """Read a field of the model's gate, or of the provider's."""
        org = self.door.settings.org
        key = self.door.keys.provider(org) if provider else self.door.keys.gate(org, POWER)
        return word(self.redis.hget(key, field) or b"")

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait."""
        self.stack.until(condition, what, patience_s=60)

    def nothing_moves_for(self, swept_ms: int) -> bool:
        """Tell whether no call was made and no job was touched while sweeps went on for so long."""

        def swept() -> int:
            return int(self.redis.hget(self.door.keys.sweep, "last") or 0)

        def seen() -> tuple[int, list[int]]:
            return self.calls(), [job.generation for job in self.jobs()]

        begun, before = swept(), seen()
        self.until(lambda: swept() > begun + swept_ms, "some sweeps")
        return seen() == before

    def finish(self) -> list[Job]:
        """Wait for all jobs, and find every promise kept."""
        assert sum(1 for _ in self.client.wait(self.ids, timeout=90)) == len(self.ids)
        log = self.stack.settings().usage_log_path
        booked = len(read_ledger(self.stack.redis.url, self.stack.namespace))
        self.until(lambda: log.exists() and log.read_bytes().count(b"\n") >= booked, "the usage log")
        jobs = self.jobs()
        ledger = read_ledger(self.stack.redis.url, self.stack.namespace)
        verdict = judge({j.id: j for j in jobs}, ledger, self.stack.ask("/_sim/calls")["calls"], log)
        assert verdict.clean, verdict.summary()
        assert {job.state for job in jobs} == {JobState.SUCCEEDED}
        return jobs


@pytest.mark.parametrize(
    "mode", ["503", *(pytest.param(mode, marks=pytest.mark.system) for mode in ("hang", "refuse_reset"))]
)
def test_an_outage_costs_no_job_and_one_look_at_a_time(tmp_path: Path, mode: str) -> None:
    """Two workers' jobs wait it out: no attempt but the first is used, and soon only probes are sent."""
    with stack_for(tmp_path, VESSEL_CALL_TIMEOUT="2") as stack, GroqClient(settings=stack.settings()) as client:
        lift_limits(stack)
        stack.start_worker(["power"])
        stack.start_worker(["power"])
        case = Case(stack, client)
        stack.ask("/_sim/outage", {"mode": mode})
        case.submit(requests(30))
        case.until(lambda: case.gate("br") == "open", "the breaker to open")
        case.until(lambda: case.gate("br_probes") == "1", "the first look")
        calls = case.calls()
        case.until(lambda: case.gate("br_probes") == "2", "the second look")
        assert case.calls() - calls <= 2  # the first look may be counted only after it was begun
        stack.ask("/_sim/outage", {"mode": "off"})
        jobs = case.finish()
    assert max(job.counted_attempts for job in jobs) <= 2


def test_a_model_that_dies_in_mid_run_costs_nothing_but_one_warning(tmp_path: Path) -> None:
    """Every job ends, every result names the model that served it, and the logs of two workers hold one warning."""
    with stack_for(tmp_path, latency_ms=60) as stack, GroqClient(settings=stack.settings()) as client:
        lift_limits(stack)
        stack.start_worker(["power", "speed_demon"], slots=10)
        stack.start_worker(["power", "speed_demon"], slots=10)
        case = Case(stack, client)
        case.submit(requests(200, fallback="chain"))
        case.until(lambda: case.done() >= 30, "some jobs to end")
        stack.ask("/_sim/models", {"remove": [POWER]})
        jobs = case.finish()
        warnings = sum(stack.log(f"worker{n}").count("model.gone") for n in (1, 2))
        answered = {call["model"] for call in stack.ask("/_sim/calls")["calls"] if call["status"] == 200}
    assert {job.served_model for job in jobs} == {POWER, OTHER} == answered
    assert warnings == 1


@pytest.mark.parametrize("told", [True, pytest.param(False, marks=pytest.mark.system)])
def test_a_used_up_day_parks_jobs_and_sends_nothing(tmp_path: Path, *, told: bool) -> None:
    """Hours to wait: the jobs say so, nothing is called and nothing is asked again, known or learned."""
    with stack_for(tmp_path, told=told) as stack, GroqClient(settings=stack.settings()) as client:
        lift_limits(stack)
        stack.ask("/_sim/limits", {"model": POWER, "limits": {"rpd": 5}})
        stack.start_worker(["power"])
        case = Case(stack, client)
        case.submit(requests(12))
        case.until(lambda: case.done() == 5, "the day to be used up")
        case.until(lambda: sum(job.state is JobState.PARKED for job in case.jobs()) == 7, "the others to wait")
        case.until(lambda: case.nothing_moves_for(3_000), "everything to stand still")
        assert case.calls() < 24  # some may have gone while the limit was being learned
        waits = [w for w in map(client.waiting, case.ids) if w is not None]
        assert {w.why for w in waits} == {"quota"}
        assert all("requests per day" in w.detail for w in waits)


def test_maintenance_holds_and_then_resumes(tmp_path: Path) -> None:
    """Jobs are accepted, use no attempt and say until when; lifted, they run."""
    with stack_for(tmp_path) as stack, GroqClient(settings=stack.settings()) as client:
        lift_limits(stack)
        stack.start_worker(["power"])
        case = Case(stack, client)
        case.runner.run(set_maintenance(case.door, None, None, "new racks"))
        case.submit([*requests(5), *requests(5, priority="batch"), *requests(5, priority="interactive")])
        case.until(lambda: not case.redis.llen(case.door.keys.queue("power")), "the tickets to be taken")
        case.until(lambda: all(job.state is not JobState.RUNNING for job in case.jobs()), "the jobs to be held")
        assert {w.why for w in map(client.waiting, case.ids) if w is not None} == {"maintenance"}
        assert case.calls() == 0
        case.runner.run(clear_maintenance(case.door, None))
        jobs = case.finish()
    assert {len(job.attempts) for job in jobs} == {1}


def test_a_bad_key_pauses_everything_until_it_is_replaced(tmp_path: Path) -> None:
    """Three calls find out, the others are held and say why; a new key in the file is taken without a restart."""
    key = tmp_path / "key"
    key.write_text(KEY, "utf-8")
    with (
        stack_for(tmp_path, GROQ_API_KEY="", GROQ_API_KEY_FILE=str(key)) as stack,
        GroqClient(settings=stack.settings()) as client,
    ):
        lift_limits(stack)
        stack.start_worker(["power"])
        case = Case(stack, client)
        new = KEY[:-1] + ("x" if KEY[-1] != "x" else "y")
        stack.ask("/_sim/keys", {"revoke": [KEY], "add": [new]})
        case.submit(requests(3))
        case.until(lambda: case.gate("br", provider=True) == "open", "the pause")
        assert case.gate("br_why", provider=True) == "unauthorized"
        calls = case.calls()
        case.submit(requests(20))
        case.until(lambda: all(job.state is JobState.PARKED for job in case.jobs()), "all to be held")
        assert case.calls() <= calls + 1
        key.write_text(new, "utf-8")
        jobs = case.finish()
    assert {job.counted_attempts for job in jobs} == {1}


@pytest.mark.system
def test_the_loss_of_the_feeding_process_stops_nobody(tmp_path: Path) -> None:
    """The worker that feeds the backlog is killed with jobs booked and running; the other one goes on with all."""
    with stack_for(tmp_path, latency_ms=100) as stack, GroqClient(settings=stack.settings()) as client:
        lift_limits(stack)
        workers = [stack.start_worker(["power"], slots=20) for _ in range(2)]
        case = Case(stack, client)
        case.submit(requests(300, priority="batch"))
        case.until(lambda: case.done() >= 50, "some jobs to end")
        player = word(case.redis.get(case.door.keys.role("sweeper")) or b"")
        (feeds,) = (worker for worker in workers if player.endswith(f":{worker.pid}"))
        stack.kill(feeds, signal.SIGKILL)
        case.finish()


def test_an_interactive_call_does_not_wait_for_a_batch(tmp_path: Path) -> None:
    """With hundreds of batch jobs before it and the minute used up, it is answered while most of them wait."""
    with stack_for(tmp_path, told=False) as stack, GroqClient(settings=stack.settings()) as client:
        stack.ask("/_sim/limits", {"model": "*", "limits": {"rpm": 300, "tpm": 100_000_000, "rpd": None}})
        (tmp_path / "registry.toml").write_text(REGISTRY.replace("rpm = 1000000", "rpm = 300"), "utf-8")
        stack.start_worker(["power"])
        case = Case(stack, client)
        case.submit(requests(400, priority="batch"))
        case.until(lambda: case.done() >= 305, "the minute to be used up")
        assert client.query("Quick?", tier="power", fallback="none", timeout=20).text
        assert case.done() < 400
