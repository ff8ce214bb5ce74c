"""The steps of the boot verification: what each one found, what that means, and what to do about it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, TypeVar

from vessel.cli import installed
from vessel.cli.backup_restore import RESTORER
from vessel.cli.check_cures import UnitCures
from vessel.cli.check_faces import faces, units
from vessel.cli.check_seen import Plan, Seen, failed, passed, skipped
from vessel.cli.faults import FAILED, MISSING
from vessel.cli.launch import SIMULATOR_KEY
from vessel.cli.output import counted
from vessel.cli.simulated import running_simulator
from vessel.client import GroqClient
from vessel.errors import RedisRefused, Unreachable, VesselError, WaitTimeout
from vessel.keyspace.connect import SyncRunner, connect
from vessel.keyspace.script import command, word
from vessel.keyspace.server import configured, info
from vessel.registry import Availability
from vessel.submit import Door, redis_url
from vessel.upstream.groq import GroqUpstream
from vessel.upstream.keys import KeySource
from vessel.upstream.outcome import Failure, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vessel.cli.check_cures import Cures
    from vessel.cli.check_seen import Step
    from vessel.keyspace.server import Server
    from vessel.settings import Settings

T = TypeVar("T")
LIST_S = 10.0
PATIENCE_S = 3.0
"""Workers beat and sweepers renew every half a second; a busy machine may leave a few out."""
LOOK_S = 0.1
TEST_PROMPT = "Answer with the one word: ready"
TEST_CAP_USD = Decimal("0.001")
TEST_TOKENS = 64
NOBODY = frozenset({"", RESTORER})
AWAY = "it cannot be reached: nothing is accepted or served until it is back"
_MEMORY = "nothing of their own: they cannot be seen while Redis has no memory to note them"
_NOT_IN_ITS_WAY = frozenset({"mcp", "flower", "api", "sweeper", "services"})
REFUSED = frozenset({Reason.UNAUTHORIZED, Reason.FORBIDDEN, Reason.SPEND_LIMIT})


def look(plan: Plan, told: Callable[[Step], None], *, last: bool = True) -> Seen:
    """Take every step, whatever the ones before found; `told` hears of each as it ends.

    Unless this is the last look, the test call is made only where nothing else has failed.
    """
    seen = Seen(simulator=running_simulator(plan.settings.data_dir), last=last)
    seen.installation = installed.find() if plan.units else None
    if seen.installation is not None:
        seen.cures = UnitCures(seen.installation)
    with seen.held:
        for step in (
            _key, _groq, _reach_redis, _persistent, _workers, _sweeper, faces, units, _maintenance, _inference,
        ):  # fmt: skip
            for one in _taken(step, plan, seen):
                seen.steps.append(one)
                told(one)
    return seen


def _taken(step: Callable[[Plan, Seen], list[Step]], plan: Plan, seen: Seen) -> list[Step]:
    """Take a step; should Redis go away meanwhile, that is what it found."""
    try:
        return step(plan, seen)
    except Unreachable as error:
        seen.redis = None
        name = step.__name__.removeprefix("_")
        return [failed(name, "Redis", error.message, error.code, seen.cures.redis(), MISSING)]


def accepted(settings: Settings, simulator: str | None, cures: Cures) -> list[Step]:
    """Take the steps about the key alone."""
    plan = Plan(settings, (), frozenset(), inference=False, inference_s=0.0)
    seen = Seen(simulator=simulator, cures=cures)
    return [*_key(plan, seen), *_groq(plan, seen)]


def _source(settings: Settings, simulator: str | None) -> KeySource:
    if simulator:
        return KeySource(SIMULATOR_KEY)
    given = settings.groq_api_key
    return KeySource(given.get_secret_value() if given else None, settings.groq_api_key_file)


def _key(plan: Plan, seen: Seen) -> list[Step]:
    keys, file = _source(plan.settings, seen.simulator).all(), plan.settings.groq_api_key_file
    if seen.simulator:
        return [passed("key", "API key", "that of the simulator, which is no secret")]
    if keys:
        place = "GROQ_API_KEY_FILE" if file else "GROQ_API_KEY"
        return [passed("key", "API key", f"{counted(len(keys), 'key')} in {place}")]
    text = f"{installed.credential_source(file)} (GROQ_API_KEY_FILE) holds no usable key" if file else "none is set"
    return [failed("key", "API key", text, "key_missing", seen.cures.key(file), MISSING, waits=bool(file))]


def _groq(plan: Plan, seen: Seen) -> list[Step]:
    """Ask for the models with each key: a 401 is an answer, so it says that Groq is reached and the key is bad."""
    keys = _source(plan.settings, seen.simulator).all()
    url = seen.simulator or plan.settings.groq_base_url
    if not keys:
        why = "not looked at, as there is no key"
        return [skipped("groq", "Groq API", why), skipped("key_accepted", "Key accepted", why)]
    began = time.monotonic()
    answers = [asyncio.run(_models(url, key)) for key in keys]
    took = round((time.monotonic() - began) * 1000 / len(answers))
    lists = [answer for answer in answers if not isinstance(answer, Failure)]
    failures = [answer for answer in answers if isinstance(answer, Failure)]
    if not lists and not any(failure.reason in REFUSED for failure in failures):
        worst = failures[0]
        code = "groq_unreachable" if worst.status is None else "groq_failing"
        text = f"{url} gave no list of models ({_reason(worst)}). {worst.message}"
        cure = "check the network and proxies with `curl -I " + url + "`, then https://groqstatus.com"
        return [failed("groq", "Groq API", text, code, cure, MISSING),
                skipped("key_accepted", "Key accepted", "not known, as Groq was not reached")]  # fmt: skip
    reached = passed("groq", "Groq API", f"{url} answers in {took} ms{' (a simulator)' if seen.simulator else ''}")
    if not lists:
        text = f"Groq answers, but refuses the key ({_reason(failures[0])}); jobs wait, and use no attempt"
        cure = seen.cures.new_key(plan.settings.groq_api_key_file)
        return [reached, failed("key_accepted", "Key accepted", text, "key_refused", cure, FAILED, waits=False)]
    listed = frozenset(str(model["id"]) for model in lists[0] if model.get("active", True))
    if not listed:
        cure = "check the permissions of the key's project at https://console.groq.com/settings/limits"
        return [reached, failed("key_accepted", "Key accepted", "Groq lists no model for it", "no_models", cure)]
    seen.availability = Availability(listed, frozenset(), datetime.now(UTC).date())
    text = f"{counted(len(listed), 'model')} listed"
    if failures:
        bad = ", ".join(str(at) for at, answer in enumerate(answers, 1) if isinstance(answer, Failure))
        text += f"; {len(lists)} of {len(answers)} keys are accepted, number {bad} of the file is not"
    return [reached, passed("key_accepted", "Key accepted", text)]


async def _models(url: str, key: str) -> Sequence[dict[str, object]] | Failure:
    upstream = GroqUpstream(KeySource(key), url)
    try:
        return await upstream.list_models(deadline_s=LIST_S)
    finally:
        await upstream.close()


def _reach_redis(plan: Plan, seen: Seen) -> list[Step]:
    name, title = "redis", "Redis"
    try:
        runner = SyncRunner(seen.held.enter_context(contextlib.closing(connect(redis_url(plan.settings)))))
        runner.run(command("PING", parse=word))
    except VesselError as error:
        code = error.code if error.code in {"redis_refused", "redis_unreachable"} else "redis_not_set"
        text = AWAY if code == "redis_unreachable" else error.message
        cure = seen.cures.redis_user() if code == "redis_refused" else seen.cures.redis()
        return [failed(name, title, text, code, cure, MISSING)]
    seen.redis = runner
    with contextlib.suppress(RedisRefused):
        seen.server = runner.run(info())
    product = seen.server.product if seen.server else "a Redis that does not tell its version"
    return [passed(name, title, f"{product} answers")]


def _persistent(_plan: Plan, seen: Seen) -> list[Step]:
    name, title = "redis_persistent", "Persistent"
    if seen.redis is None:
        return [skipped(name, title, "not known, as Redis was not reached")]
    if seen.server is None:
        cure = "give Vessel's Redis user the right to look: ACL SETUSER ... +info"
        return [failed(name, title, "Redis does not let its user run INFO", "redis_not_persistent", cure)]
    wrong = _forgets(seen.server, seen.cures)
    if wrong:
        return [failed(name, title, *wrong)]
    sync = ""
    with contextlib.suppress(RedisRefused):
        sync = seen.redis.run(configured("appendfsync"))
    kept = {"always": ", no accepted job is lost in a power cut", "everysec": ", a power cut loses at most 2 s"}
    return [passed(name, title, f"append-only file{f', fsync {sync}' if sync else ''}{kept.get(sync, '')}")]


def _forgets(server: Server, cures: Cures) -> tuple[str, str, str] | None:
    """Say how a server would lose or refuse jobs, with its code and the cure."""
    if not server.appends:
        text = "the append-only file is off: after a crash of Redis all jobs since its last snapshot are gone"
        return text, "redis_not_persistent", cures.redis_setting("appendonly", "yes")
    if server.writes_fail:
        cure = "free space on Redis' disk, then look into its log"
        return f"its last write failed ({server.writes_fail})", "redis_not_persistent", cure
    if (server.memory_part or 0.0) >= 1.0:
        cure = f"{cures.redis_setting('maxmemory', '<more>')}; ops/runbooks/redis-full.md"
        return "its memory is full, so new jobs are refused; results are still kept", "redis_full", cure
    policy = server.text("maxmemory_policy") or "noeviction"
    if server.number("maxmemory") and policy != "noeviction":
        text = f"it throws jobs away when memory is full ({policy})"
        return text, "redis_evicts", cures.redis_setting("maxmemory-policy", "noeviction")
    return None


def _workers(plan: Plan, seen: Seen) -> list[Step]:
    name, title = "workers", "Workers"
    if seen.redis is None:
        return [skipped(name, title, "not known, as Redis was not reached")]
    door = Door(plan.settings)
    runner = seen.redis
    alive = patiently(lambda: runner.run(door.alive(plan.tiers)), lambda one: all(one.values()), patient=plan.patient)
    asleep = [tier for tier, count in alive.items() if not count]
    if asleep:
        text = f"none is alive for {', '.join(asleep)}: their jobs wait"
        cure = _MEMORY if seen.full else seen.cures.workers(asleep)
        return [failed(name, title, text, "worker_missing", cure)]
    processes = seen.redis.run(command("HLEN", door.keys.slots, parse=int))
    slots = seen.redis.run(door.slots())
    text = f"every tier is served ({len(alive)}), by {counted(processes, 'process', 'processes')} with {slots} slots"
    return [passed(name, title, text)]


def _sweeper(plan: Plan, seen: Seen) -> list[Step]:
    name, title = "sweeper", "Sweeps"
    if seen.redis is None:
        return [skipped(name, title, "not known, as Redis was not reached")]
    runner, role = seen.redis, command("GET", Door(plan.settings).keys.role("sweeper"), parse=word)
    owner = patiently(lambda: runner.run(role), lambda found: found not in NOBODY, patient=plan.patient)
    if owner not in NOBODY:
        return [passed(name, title, f"run by {owner}")]
    if owner:
        cure = f"let it end; one that was stopped half-way is run again: `{seen.cures.program} restore FILE`"
        return [failed(name, title, "held up by a restore, which has not ended", "sweeper_missing", cure)]
    text = "nobody runs them: batches are not fed, lost jobs stay"
    return [failed(name, title, text, "sweeper_missing", _MEMORY if seen.full else seen.cures.scheduler())]


def _maintenance(plan: Plan, seen: Seen) -> list[Step]:
    name, title = "maintenance", "Maintenance"
    if seen.redis is None:
        return [skipped(name, title, "not known, as Redis was not reached")]
    with GroqClient(settings=plan.settings) as client:
        active = client.maintenance().active
    if not active:
        return [passed(name, title, "off")]
    which = ", ".join(one.tier or "everything" for one in active)
    text = f"on for {which}: jobs are accepted and held"
    return [failed(name, title, text, "maintenance_on", seen.cures.maintenance())]


def _inference(plan: Plan, seen: Seen) -> list[Step]:
    """Send one tiny job the way that every job takes: queue, worker, gate, Groq and back."""
    name, title = "inference", "Test call"
    if not plan.inference:
        return [skipped(name, title, "left out (--no-inference)")]
    aside = _NOT_IN_ITS_WAY if seen.last else frozenset[str]()
    first = next((step for step in seen.failed if step.name not in aside), None)
    if first is not None:
        return [skipped(name, title, f"not made, as {first.title.lower()} failed")]
    tier = "ultra_fast" if "ultra_fast" in plan.tiers else plan.tiers[0]
    began = time.monotonic()
    with GroqClient(settings=plan.settings) as client:
        try:
            seen.result = result = client.query(
                TEST_PROMPT, tier=tier, on_outage="fail", max_cost_usd=TEST_CAP_USD, tags={"for": "check"},
                max_completion_tokens=TEST_TOKENS, deadline=plan.inference_s, timeout=plan.inference_s,
            )  # fmt: skip
        except WaitTimeout as error:
            with contextlib.suppress(VesselError):
                client.cancel(error.job_id or "")
            text = f"no answer within {plan.inference_s:g} s"
            return [failed(name, title, text, "inference_failed", seen.cures.inference(error.job_id))]
        except VesselError as error:
            cure = seen.cures.inference(getattr(error, "job_id", None))
            return [failed(name, title, error.message, "inference_failed", cure)]
    tokens = result.usage.prompt_tokens + result.usage.completion_tokens
    took = time.monotonic() - began
    text = f"{result.model} answered in {took:.2f} s through the queue, {tokens} tokens, {result.cost_usd:f} USD"
    return [passed(name, title, text)]


def patiently(look: Callable[[], T], well: Callable[[T], bool], *, patient: bool = True) -> T:
    """Look until it is well, once or for a few seconds at most; returns what was seen last."""
    until = time.monotonic() + (PATIENCE_S if patient else 0.0)
    while not well(found := look()) and time.monotonic() < until:
        time.sleep(LOOK_S)
    return found


def _reason(failure: Failure) -> str:
    return f"{failure.reason}, HTTP {failure.status}" if failure.status else str(failure.reason)
