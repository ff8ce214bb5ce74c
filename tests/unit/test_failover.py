"""The OpenAI vessel's settings, models, hops and decisions."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vessel.errors import (
    ContextLengthExceeded,
    CostCapTooSmall,
    RegistryError,
    SettingsError,
    UnknownModel,
    UnsupportedContent,
)
from vessel.jobs.flows import fails_over, flow_of, goes_anywhere, in_outage
from vessel.jobs.model import Hop
from vessel.keyspace.names import Keys, gate_keys
from vessel.registry import OPENAI_PREFIX, Availability, Failover, Vessel, failover_of, load_registry, vessel_of
from vessel.routing.fallback import LOOK_AGAIN_MS, Complete, Decision, Fail, Park, Reroute, Retry, Situation, decide
from vessel.routing.router import Route, route
from vessel.settings import load_settings
from vessel.submit import Door
from vessel.upstream.outcome import Failure, Reason, Success, Usage
from vessel.upstream.translate import leave_out_groqs
from vessel.wire import JobState, Policy, check_submission

if TYPE_CHECKING:
    from pathlib import Path

MINI = f"{OPENAI_PREFIX}gpt-4o-mini"
KNOWN = {"VESSEL_FAILOVER_MODEL": "gpt-4o-mini", "OPENAI_API_KEY": "sk-x"}
CHAIN = (Hop("first", "power"), Hop("second", "balanced"), Hop(MINI, "power", "failover"))
UNAVAILABLE = frozenset({MINI})
NOW = 1_000_000
TODAY = Availability(None, frozenset(), date(2026, 11, 23))
BLIND = Availability(frozenset({"openai/gpt-oss-120b", "openai/gpt-oss-20b"}), frozenset(), date(2026, 11, 23))
IMAGE = [{"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}]
REGISTRY = load_registry()


def vessel(**environ: str) -> Failover:
    """Arm the failover."""
    found = failover_of(REGISTRY, load_settings(KNOWN | environ))
    assert found is not None
    return found


# --- settings


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8080/v1",
        "http://127.0.0.1:8080",
        "http://127.8.9.1:8080/v1",
        "http://[::1]:8080/v1",
        "http://0.0.0.0:8080/v1",
    ],
)
def test_vessels_own_address_is_refused_in_every_spelling(url: str) -> None:
    """A failover to our own API would come back to where it started."""
    with pytest.raises(SettingsError, match="own address"):
        load_settings({"VESSEL_FAILOVER_MODEL": "m", "OPENAI_BASE_URL": url})
    load_settings({"VESSEL_FAILOVER_MODEL": "m", "OPENAI_BASE_URL": url, "VESSEL_API_PORT": "8090"})
    load_settings({"OPENAI_BASE_URL": url})  # not armed


def test_a_port_left_out_is_that_of_the_scheme() -> None:
    """An API on port 443 is found behind an address without one."""
    own = {"VESSEL_FAILOVER_MODEL": "m", "VESSEL_API_HOST": "vessel.example", "VESSEL_API_PORT": "443"}
    with pytest.raises(SettingsError, match="own address"):
        load_settings(own | {"OPENAI_BASE_URL": "https://Vessel.example/v1"})
    load_settings(own | {"OPENAI_BASE_URL": "https://api.example/v1"})


def test_prices_come_in_pairs() -> None:
    """One price alone would make every cost wrong."""
    with pytest.raises(SettingsError, match="set both, or neither"):
        load_settings(KNOWN | {"VESSEL_FAILOVER_PRICE_INPUT": "1"})


# --- models


def test_the_endpoints_models_are_not_among_those_of_groq() -> None:
    """They can be neither named nor routed to, and no count holds them."""
    assert {"gpt-4o-mini", "gpt-4.1-mini"} <= set(REGISTRY.failover)
    assert not set(REGISTRY.failover) & set(REGISTRY.models)
    assert {m.vessel for m in REGISTRY.models.values()} == {Vessel.GROQ}
    with pytest.raises(UnknownModel, match="no model or tier"):
        routed(vessel_policy={}, model="gpt-4o-mini")


def test_a_known_model_has_its_prices_and_the_settings_limits() -> None:
    """Sixty requests a minute unless set; Groq's plan changes nothing."""
    found = vessel(VESSEL_FAILOVER_TPM="1000", VESSEL_GROQ_PLAN="free")
    assert (found.model.id, found.model.served_id, found.priced) == (MINI, "gpt-4o-mini", True)
    assert found.model.prices.output == Decimal("0.60")
    assert found.model.limits["free"] == found.model.limits["developer"]
    assert (found.model.limits["free"].rpm, found.model.limits["free"].tpm) == (60, 1000)


def test_an_unknown_model_is_estimated_until_its_prices_are_set() -> None:
    """It may have the id of a model of Groq's."""
    unknown = vessel(VESSEL_FAILOVER_MODEL="openai/gpt-oss-20b")
    assert (unknown.priced, unknown.model.price_estimated) == (False, True)
    assert unknown.model.prices.output == max(m.prices.output for m in REGISTRY.failover.values())
    told = vessel(
        VESSEL_FAILOVER_MODEL="openai/gpt-oss-20b", VESSEL_FAILOVER_PRICE_INPUT="1", VESSEL_FAILOVER_PRICE_OUTPUT="2"
    )
    assert (told.priced, told.model.price_estimated, told.model.prices.input) == (True, False, Decimal(1))
    assert failover_of(REGISTRY, load_settings({})) is None


def test_a_registry_of_ones_own_adds_models(tmp_path: Path) -> None:
    """With its faults told at start."""
    path = tmp_path / "models.toml"
    text = 'vessel = "openai"\nkind = "chat"\nstatus = "production"\ncontext_window = 8\nmax_output = 8\n'
    path.write_text(f'[models."local"]\n{text}prices = {{ input = 0, output = 0 }}\n')
    assert load_registry(path).failover["local"].id == "openai:local"
    path.write_text(f'[models."local"]\n{text}prices = {{ input = 0, output = 0 }}\ntier = "power"\n')
    with pytest.raises(RegistryError, match="has no tier"):
        load_registry(path)


def test_the_endpoints_gate_is_not_groqs() -> None:
    """Its breaker holds nothing of Groq's, and Groq's maintenance not it; caps hold for both."""
    keys = Keys("v")
    ours, theirs = gate_keys(keys, "default", "first", "t"), gate_keys(keys, "default", MINI, "t")
    assert ours.provider != theirs.provider
    assert ours.maintenance != theirs.maintenance
    assert (ours.budget, ours.whole) == (theirs.budget, theirs.whole)


# --- hops


def routed(
    content: Any = "hello",
    *,
    world: Availability = TODAY,
    failover: Failover | None = None,
    vessel_policy: dict[str, Any] | None = None,
    tokens: int = 100,
    **body: Any,
) -> Route:
    """Route a request; `on_outage` is failover unless a policy is given."""
    policy = {"on_outage": "failover"} if vessel_policy is None else vessel_policy
    submission = check_submission({"messages": [{"role": "user", "content": content}], **body}, policy)
    return route(submission, REGISTRY, world, estimated_tokens=tokens, failover=failover)


def test_the_failover_is_the_last_hop_and_only_where_asked_for() -> None:
    """The chain before it is the same as without."""
    asked, not_asked = routed(failover=vessel()), routed(failover=vessel(), vessel_policy={})
    assert asked.hops[-1] == Hop(MINI, asked.tier, f"{MINI} serves in an outage")
    assert asked.hops[:-1] == not_asked.hops
    assert all(vessel_of(hop.model) is Vessel.GROQ for hop in not_asked.hops)


def test_what_stands_against_it_is_told_at_once() -> None:
    """Not armed, too small, or batch work without a cap."""
    assert "no failover model is set" in " ".join(routed().reasons)
    small = routed(failover=vessel(), tokens=129_000, vessel_policy={"on_outage": "failover", "tier": "power"})
    assert "is too small" in " ".join(small.reasons)
    batch = routed(failover=vessel(), vessel_policy={"on_outage": "failover", "priority": "batch"})
    assert "only with a cost cap" in " ".join(batch.reasons)


def test_a_chain_that_groq_serves_nothing_of_starts_there() -> None:
    """All gone is an outage too."""
    gone = Availability(frozenset({"whisper-large-v3"}), frozenset(), date(2026, 11, 23))
    assert [hop.model for hop in routed(world=gone, failover=vessel()).hops] == [MINI]


def test_images_go_to_groq_then_to_the_endpoint_then_nowhere() -> None:
    """Without an outage, and without being asked for."""
    assert routed(IMAGE, failover=vessel(), vessel_policy={}).model == "qwen/qwen3.8-27b"
    found = routed(IMAGE, world=BLIND, failover=vessel(), vessel_policy={})
    assert ([hop.model for hop in found.hops], found.task) == ([MINI], "images")
    with pytest.raises(UnsupportedContent, match="no model that takes them is served"):
        routed(IMAGE, world=BLIND, vessel_policy={})
    with pytest.raises(UnsupportedContent, match="only with a cost cap"):
        routed(IMAGE, world=BLIND, failover=vessel(), vessel_policy={"priority": "batch"})
    with pytest.raises(ContextLengthExceeded, match="too many"):
        routed(IMAGE, world=BLIND, failover=vessel(), vessel_policy={}, tokens=200_000)


def test_a_cap_is_checked_against_the_chain_and_not_the_failover() -> None:
    """A job that only the failover could afford would fail while Groq is well."""
    free = KNOWN | {"VESSEL_FAILOVER_PRICE_INPUT": "0", "VESSEL_FAILOVER_PRICE_OUTPUT": "0"}
    door = Door(load_settings(free))
    body = {"messages": [{"role": "user", "content": "x" * 4000}], "max_completion_tokens": 4000}
    with pytest.raises(CostCapTooSmall):
        door.prepare(body, {"on_outage": "failover", "max_cost_usd": "0.000001"}, availability=TODAY)


@pytest.mark.parametrize(
    ("policy", "goes"),
    [
        ({"on_outage": "failover"}, True),
        ({"on_outage": "queue"}, False),
        ({"on_outage": "failover", "priority": "batch"}, False),
        ({"on_outage": "failover", "priority": "batch", "max_cost_usd": "1"}, True),
    ],
)
def test_jobs_that_go_elsewhere_wait_apart(policy: dict[str, Any], goes: bool) -> None:  # noqa: FBT001  a table's column
    """Their flow is fed where others are held."""
    body = {"messages": [{"role": "user", "content": "hello"}]}
    new = Door(load_settings(KNOWN)).prepare(body, policy, availability=TODAY).new
    assert fails_over(new) is goes
    assert goes_anywhere(flow_of("power", "t", outage=in_outage(new))) is goes


# --- decisions


def decided(
    reason: Reason, *, hop: int = 0, policy: dict[str, Any] | None = None, more: dict[str, Any] | None = None, **s: Any
) -> Decision:
    """Decide on a failure of a job with a chain of two and the failover behind."""
    plain: dict[str, Any] = {
        "hops": CHAIN,
        "hop": hop,
        "counted_attempts": 1,
        "uncounted_attempts": 3,
        "attempts_on_this_hop": 1,
        "now_ms": NOW,
        "created_at": NOW - 1000,
        "unavailable": UNAVAILABLE,
        "failover": 2,
    }
    situation = Situation(policy=Policy.model_validate({"on_outage": "failover"} | (policy or {})), **(plain | s))
    return decide(situation, Failure(CHAIN[hop].model, reason, "It did not work.", **(more or {})))


OUTAGES = (
    *(Reason.CONNECT_FAILED, Reason.UNAUTHORIZED, Reason.NO_KEY, Reason.FORBIDDEN, Reason.SPEND_LIMIT),
    *(Reason.MAINTENANCE, Reason.BREAKER_OPEN),
)


@pytest.mark.parametrize("reason", OUTAGES)
def test_an_outage_of_all_models_leads_to_the_failover(reason: Reason) -> None:
    """From any hop, also where the wait would be too long for the job."""
    assert decided(reason) == Reroute(2, str(reason))
    assert decided(reason, policy={"max_wait": "1s"}) == Reroute(2, str(reason))


@pytest.mark.parametrize("reason", [Reason.OVER_CAPACITY, Reason.MODEL_GONE])
def test_an_outage_of_one_model_takes_the_chain_first(reason: Reason) -> None:
    """The failover comes when the chain is exhausted."""
    assert decided(reason) == Reroute(1, str(reason))
    gone = UNAVAILABLE | ({"first", "second"} if reason is Reason.MODEL_GONE else set())
    assert decided(reason, hop=1, unavailable=gone) == Reroute(2, str(reason))


@pytest.mark.parametrize("reason", [Reason.SERVER_ERROR, Reason.TIMEOUT, Reason.CONNECTION_LOST])
def test_a_failure_is_an_outage_when_the_breaker_says_so(reason: Reason) -> None:
    """Alone it may be the job's own."""
    assert decided(reason, outage=True) == Reroute(2, str(reason))
    assert isinstance(decided(reason), Retry)


def test_a_job_whose_attempts_are_used_up_by_an_outage_asks_it_last() -> None:
    """One job alone never opens a breaker; what is the job's own fault ends it as before."""
    used: dict[str, Any] = {"policy": {"max_attempts": 2}, "counted_attempts": 2}
    assert decided(Reason.CONNECTION_LOST, **used) == Reroute(2, "connection_lost")
    assert isinstance(decided(Reason.CONNECTION_LOST, failover=None, **used), Fail)
    assert isinstance(decided(Reason.TOOL_USE_FAILED, **used), Fail)
    assert isinstance(decided(Reason.CONNECTION_LOST, deadline_at=NOW, **used), Fail)


@pytest.mark.parametrize("reason", [Reason.RATE_LIMITED, Reason.OVER_BUDGET, Reason.BAD_REQUEST, Reason.TOO_LARGE])
def test_what_is_no_outage_does_not_lead_there(reason: Reason) -> None:
    """Quota is waited for, our own caps hold everywhere, and a bad request stays bad."""
    assert decided(reason, more={"retry_after_s": 500}) != Reroute(2, str(reason))


@pytest.mark.parametrize("policy", ["queue", "fail"])
def test_others_do_not_go_there(policy: str) -> None:
    """Without the wish there is no such hop, and nothing changes."""
    found = decided(
        Reason.CONNECT_FAILED, policy={"on_outage": policy}, hops=CHAIN[:2], unavailable=frozenset(), failover=None
    )
    assert isinstance(found, Park if policy == "queue" else Fail | Retry)


def test_why_it_may_not_is_told_with_the_wait() -> None:
    """A wait that something can end is one by the clock, and short."""
    never = decided(Reason.BREAKER_OPEN, failover=None, failover_note="No cap.")
    assert isinstance(never, Park)
    assert (never.note, never.timed) == ("No cap.", False)
    later = decided(Reason.BREAKER_OPEN, failover=None, failover_note="Held.", failover_in_ms=60_000)
    assert isinstance(later, Park)
    assert (later.note, later.timed) == ("Held.", True)
    assert later.delay_ms <= LOOK_AGAIN_MS


@given(
    st.sampled_from([reason for reason in Reason if reason is not Reason.CANCELLED]),
    st.integers(0, 60),
    st.floats(0, 0.999),
    st.sampled_from(["interactive", "normal", "batch"]),
)
def test_a_failed_failover_goes_back_to_the_chain(reason: Reason, calls: int, jitter: float, priority: str) -> None:
    """Whatever it was, however often: it waits, on a hop of Groq's, and no attempt of the job is over."""
    found = decided(
        reason, hop=2, policy={"priority": priority, "max_attempts": 1}, uncounted_attempts=calls, jitter=jitter
    )
    assert isinstance(found, Park)
    assert (found.hop, found.timed) == (0, True)
    assert found.delay_ms >= 500


def test_deadline_and_cancel_end_it_there_too() -> None:
    """As everywhere."""
    late = decided(Reason.SERVER_ERROR, hop=2, deadline_at=NOW + 10)
    assert isinstance(late, Fail)
    assert late.state is JobState.EXPIRED
    cut = decided(Reason.CANCELLED, hop=2)
    assert isinstance(cut, Fail)
    assert cut.state is JobState.CANCELLED


def test_an_answer_completes_and_images_alone_fail_as_usual() -> None:
    """Where there is no chain to go back to, its failures are the job's."""
    alone: dict[str, Any] = {"hops": (CHAIN[2],), "failover": None}
    assert isinstance(decided(Reason.BAD_REQUEST, **alone), Fail)
    assert isinstance(decided(Reason.CONNECT_FAILED, **alone), Park)
    situation = Situation(hops=CHAIN, hop=2, policy=Policy(), counted_attempts=1, uncounted_attempts=0,
                          attempts_on_this_hop=1, now_ms=NOW, created_at=NOW)  # fmt: skip
    assert decide(situation, Success(MINI, b"{}", Usage(), None, "stop")) == Complete()


# --- body


def test_fields_of_groqs_own_are_left_out_with_a_note() -> None:
    """The endpoint may refuse what it does not know; what both know stays."""
    body = {"model": "m", "messages": [], "service_tier": "flex", "documents": [], "seed": 1}
    left, notes = leave_out_groqs(body, "gpt-4o-mini")
    assert left == {"model": "m", "messages": [], "seed": 1}
    assert len(notes) == 2
    assert leave_out_groqs({"service_tier": "auto"}, "m") == ({"service_tier": "auto"}, ())


@pytest.mark.parametrize("name", sorted(REGISTRY.failover))
def test_the_shipped_prices_are_the_list_prices(name: str) -> None:
    """A public table of prices says the same."""
    from genai_prices import Usage as Tokens  # noqa: PLC0415  it takes a second  slow to import
    from genai_prices import calc_price  # noqa: PLC0415  it takes a second

    listed = calc_price(Tokens(input_tokens=10**6, output_tokens=10**6), model_ref=name, provider_id="openai")
    prices = REGISTRY.failover[name].prices
    assert (listed.input_price, listed.output_price) == (prices.input, prices.output)
