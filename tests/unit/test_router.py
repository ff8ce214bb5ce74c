"""The router: explicit wishes before text length, chains resolved in both worlds, and a plain no where nobody can."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from vessel.errors import ContextLengthExceeded, UnknownModel, Unreachable, UnsupportedContent
from vessel.registry import Availability, load_registry
from vessel.routing.router import Route, route
from vessel.wire import TaskType, check_submission

REGISTRY = load_registry()
B8, B70 = "llama-3.1-8b-instant", "llama-3.3-70b-versatile"
OSS120, OSS20 = "openai/gpt-oss-120b", "openai/gpt-oss-20b"
COMPOUND, MINI = "groq/compound", "groq/compound-mini"
MAVERICK = "meta-llama/llama-4-maverick-17b-128e-instruct"
SCOUT = "meta-llama/llama-4-scout-17b-16e-instruct"
QWEN = "qwen/qwen3.8-27b"
SEED_WORLD = Availability(
    frozenset({B8, B70, OSS120, OSS20, COMPOUND, MINI, MAVERICK, SCOUT}), frozenset(), date(2025, 10, 31)
)
TODAY = Availability(None, frozenset(), date(2026, 11, 23))

LONG = "please tell me something about this subject, and do it in a way that everybody in the room can follow with ease"
IMAGE = [{"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}]
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}


def routed(
    text: Any = "hello",
    *,
    world: Availability = SEED_WORLD,
    vessel: dict[str, Any] | None = None,
    tokens: int = 100,
    **body: Any,
) -> Route:
    """Route a request made of one user message."""
    submission = check_submission({"messages": [{"role": "user", "content": text}], **body}, vessel or {})
    return route(submission, REGISTRY, world, estimated_tokens=tokens)


def models(found: Route) -> list[str]:
    """Return the ids of the chain."""
    return [hop.model for hop in found.hops]


@pytest.mark.parametrize(
    ("task", "tier"),
    [
        ("classification", "ultra_fast"),
        ("extraction", "ultra_fast"),
        ("qa", "ultra_fast"),
        ("technical_qa", "balanced"),
        ("coding", "balanced"),
        ("general", "balanced"),
        ("strategic_analysis", "power"),
        ("deep_reasoning", "power"),
        ("research", "compound"),
        ("realtime", "speed_demon"),
    ],
)
@pytest.mark.parametrize("speed", ["balanced", "fast"])
def test_the_task_type_decides_the_tier(task: str, tier: str, speed: str) -> None:
    """The seed's decision matrix holds for every task type, and `fast` never changes the tier."""
    assert routed(vessel={"task_type": task, "speed_priority": speed}).tier == tier


def test_the_matrix_covers_every_task_type() -> None:
    """No task type is without a tier."""
    for task in TaskType:
        assert routed(vessel={"task_type": task}, world=TODAY).task == task


@pytest.mark.parametrize(
    ("text", "tier", "task"),
    [
        ("What is the Lion's Sanctuary?", "ultra_fast", "simple"),
        ("analyze this", "ultra_fast", "simple"),
        (LONG, "balanced", "medium"),
        (LONG + " and COMPARE it", "power", "complex"),
        (" ".join(["word"] * 19), "ultra_fast", "simple"),
        (" ".join(["word"] * 20), "balanced", "medium"),
        ("", "ultra_fast", "simple"),
        ([{"type": "text", "text": LONG + " evaluate"}], "power", "complex"),
    ],
)
def test_text_decides_last(text: Any, tier: str, task: str) -> None:
    """Without any wish the seed's heuristics apply: few words, then keywords, else medium."""
    found = routed(text)

    assert (found.tier, found.task) == (tier, task)


def test_only_the_last_user_message_is_weighed() -> None:
    """A long system prompt makes no question complex."""
    messages = [{"role": "system", "content": LONG + " analyze"}, {"role": "user", "content": "and now?"}]

    assert route(check_submission({"messages": messages}), REGISTRY, TODAY, estimated_tokens=9).tier == "ultra_fast"


# Each wish together with all that it beats: the first that is present decides (contract 4).
TOOLS = {"context": {"requires_tools": True}}
MAXIMUM = {"speed_priority": "maximum"}
CODING = {"task_type": "coding"}


@pytest.mark.parametrize(
    ("wishes", "tier"),
    [
        ({"model": QWEN, "text": IMAGE, "vessel": {"tier": "power"} | TOOLS | MAXIMUM | CODING}, "balanced"),
        ({"text": "short", "vessel": {"tier": "power"} | TOOLS | MAXIMUM | CODING}, "power"),
        ({"text": "short", "model": "power", "vessel": {"tier": "balanced"}}, "power"),
        ({"text": "short", "model": "auto", "vessel": {"tier": "power"} | TOOLS}, "power"),
        ({"text": IMAGE, "vessel": TOOLS | MAXIMUM | CODING}, "balanced"),
        ({"text": "short", "vessel": TOOLS | MAXIMUM | CODING}, "compound"),
        ({"text": "short", "vessel": MAXIMUM | CODING}, "speed_demon"),
        ({"text": "short", "vessel": {"context": {"speed_critical": True}} | CODING}, "speed_demon"),
        ({"text": "short", "vessel": CODING}, "balanced"),
        ({"text": "short"}, "ultra_fast"),
    ],
)
def test_the_more_explicit_wish_wins(wishes: dict[str, Any], tier: str) -> None:
    """Model > tier > images > built-in tools > maximum speed > task type > text."""
    assert routed(**({"world": TODAY} | wishes)).tier == tier


@pytest.mark.parametrize(
    "wish",
    [
        {"vessel": {"context": {"requires_tools": True}}},
        {"vessel": {"context": {"requires_tools": "yes"}}},
        {"vessel": {"context": {"tools": ["web_search"]}}},
        {"vessel": {"builtin_tools": ["web_search"]}},
        {"tools": [{"type": "browser_search"}]},
        {"tools": [{"type": "code_interpreter"}]},
        {"compound_custom": {"tools": {"enabled_tools": ["web_search"]}}},
    ],
)
def test_a_short_agentic_prompt_goes_to_compound(wish: dict[str, Any]) -> None:
    """Every way of asking for built-in tools beats text length; the seed sent these to the 8B."""
    assert routed("find it", **wish).tier == "compound"


@pytest.mark.parametrize("no", [False, "false", "no", "0", "", None])
def test_a_no_in_the_context_is_a_no(no: object) -> None:
    """A command line gives text; `requires_tools=false` must not ask for tools."""
    assert routed(vessel={"context": {"requires_tools": no, "speed_critical": no}}).tier == "ultra_fast"


@pytest.mark.parametrize(
    ("wish", "tools"),
    [
        ({"vessel": {"context": {"requires_tools": True}}}, ("web_search", "code_execution")),
        ({"vessel": {"tier": "compound"}}, ("web_search", "code_execution")),
        ({"vessel": {"task_type": "research"}}, ("web_search", "code_execution")),
        ({"vessel": {"task_type": "research", "builtin_tools": ["web_search"]}}, ("web_search",)),
        ({"tools": [{"type": "code_interpreter"}]}, ("code_execution",)),
        ({"tools": [FUNCTION], "vessel": {"context": {"requires_tools": True}}}, ()),
        ({"vessel": {"tier": "power"}}, ()),
    ],
)
def test_the_route_names_the_built_in_tools(wish: dict[str, Any], tools: tuple[str, ...]) -> None:
    """In our names; all of them where a tier has them and none was named; none where functions are meant."""
    assert routed(world=TODAY, **wish).builtin_tools == tools


CHAINS_SEED = {
    "ultra_fast": [B8, OSS20],
    "balanced": [B70, B8, OSS20],
    "power": [OSS120, B70, B8],
    "speed_demon": [OSS20, B8, OSS120],
    "compound": [COMPOUND, MINI, B70],
    "compound_mini": [MINI, COMPOUND, B70],
}
CHAINS_TODAY = {
    "ultra_fast": [OSS20, OSS120],
    "balanced": [OSS120, OSS20],
    "power": [OSS120, OSS20],
    "speed_demon": [OSS20, OSS120],
    "compound": [OSS120, OSS20],
    "compound_mini": [OSS20, OSS120],
}


@pytest.mark.parametrize("tier", CHAINS_SEED)
def test_chains_hold_in_both_worlds(tier: str) -> None:
    """The seed's chains where its models are served; resolved and without doubles today."""
    assert models(routed(vessel={"tier": tier})) == CHAINS_SEED[tier]
    assert models(routed(vessel={"tier": tier}, world=TODAY)) == CHAINS_TODAY[tier]


@pytest.mark.parametrize("tier", CHAINS_TODAY)
def test_the_routed_tier_carries_the_first_hop_and_each_model_its_own_the_rest(tier: str) -> None:
    """A job waits in its own tier's queue; a fallback goes to the queue of the model that takes over."""
    hops = routed(vessel={"tier": tier}, world=TODAY).hops

    assert hops[0].tier == tier
    assert [hop.tier for hop in hops[1:]] == [REGISTRY.model(hop.model).tier for hop in hops[1:]]


def test_a_successor_is_told_in_the_note_and_the_reasons() -> None:
    """Whoever asked for a retired model reads what runs in its place, and why."""
    found = routed(model=B70, world=TODAY)
    note = f"{B70} was retired on 2026-08-16; {OSS120} is its successor"

    assert found.hops[0].note == note
    assert note in found.reasons


def test_a_lost_tool_is_told_in_the_note() -> None:
    """The seed's chain ends on a model without built-in tools, and says so."""
    assert (
        routed(vessel={"task_type": "research"}).hops[-1].note == f"{B70} answers without web_search and code_execution"
    )


def test_a_model_seen_gone_leaves_the_chain() -> None:
    """A 404 at run time takes a model out even where it is listed."""
    world = Availability(frozenset({OSS120, OSS20}), frozenset({OSS120}), TODAY.today)
    found = routed(vessel={"tier": "power"}, world=world)

    assert models(found) == [OSS20]
    assert f"{OSS120} is gone and nothing takes its place" in found.reasons


@pytest.mark.parametrize(
    ("fallback", "chain"),
    [
        ("none", [OSS120]),
        ("chain", [OSS120, B70, B8]),
        ([B8, "speed_demon", B8], [OSS120, B8, OSS20]),
        ([], [OSS120]),
    ],
)
def test_the_caller_chooses_the_fallbacks(fallback: Any, chain: list[str]) -> None:
    """None, the chain, or a list of models and tiers, without doubles."""
    assert models(routed(model=OSS120, vessel={"fallback": fallback})) == chain


def test_a_successor_serves_even_without_fallback() -> None:
    """`fallback: none` still lets a retired model's successor answer: there is nothing else it could mean."""
    assert models(routed(model=B70, world=TODAY, vessel={"fallback": "none"})) == [OSS120]


def test_images_go_to_the_model_that_sees_and_nowhere_else() -> None:
    """The chain is filtered too, and the reasons tell what was left out."""
    found = routed(IMAGE, world=TODAY)

    assert models(found) == [QWEN]
    assert f"{OSS120} is left out: it cannot do images" in found.reasons
    assert models(routed(IMAGE)) == [MAVERICK, SCOUT]


def test_a_named_model_that_saw_images_passes_them_on_to_one_that_sees() -> None:
    """Scout's successor is blind, but its chain is not."""
    assert models(routed(IMAGE, model=SCOUT, world=TODAY)) == [QWEN]


def test_functions_filter_the_chain() -> None:
    """Compound takes no functions of the caller's: the built-in tools stay, on a model that has both."""
    found = routed(tools=[FUNCTION, {"type": "browser_search"}])

    assert found.tier == "power"
    assert models(found) == [OSS120, OSS20]


def test_a_json_schema_filters_the_chain() -> None:
    """The first model of the chain that takes a schema serves, in the tier that the task asks for."""
    found = routed(vessel={"task_type": "coding"}, response_format=SCHEMA)

    assert (found.tier, models(found)) == ("balanced", [OSS20])


@pytest.mark.parametrize(
    ("wish", "what"),
    [
        ({"model": OSS120, "text": IMAGE}, "images"),
        ({"vessel": {"tier": "power"}, "text": IMAGE}, "images"),
        ({"model": COMPOUND, "tools": [FUNCTION]}, "function tools"),
        ({"model": B70, "response_format": SCHEMA}, "a JSON schema"),
        ({"model": "allam-2-7b", "tools": [FUNCTION], "world": TODAY}, "function tools"),
        ({"model": B8, "vessel": {"builtin_tools": ["web_search"]}}, "built-in tools (web_search)"),
        ({"model": "whisper-large-v3", "world": TODAY}, "does not answer chat completions"),
        ({"model": OSS120, "vessel": {"fallback": ["whisper-large-v3"]}}, "does not answer chat completions"),
    ],
)
def test_an_explicit_wish_that_cannot_is_refused_by_name(wish: dict[str, Any], what: str) -> None:
    """A named model or tier that cannot do what the request holds is a 400 that says what."""
    with pytest.raises(UnsupportedContent) as caught:
        routed(**wish)
    assert what in caught.value.message
    assert caught.value.http_status == 400


def test_a_refusal_names_who_can() -> None:
    """The text of a refusal lists the models that could do it."""
    with pytest.raises(UnsupportedContent, match=QWEN):
        routed(IMAGE, model=OSS120, world=TODAY)


def test_images_nobody_sees_are_refused() -> None:
    """With no model that sees, images are refused before anything is stored."""
    with pytest.raises(UnsupportedContent, match="no model that takes them is served"):
        routed(IMAGE, world=Availability(frozenset({OSS120}), frozenset(), TODAY.today))


def test_built_in_tools_and_structured_output_exclude_each_other() -> None:
    """Asked for together they are refused; a research task with a schema goes without tools, and says so."""
    with pytest.raises(UnsupportedContent, match="in two steps"):
        routed(world=TODAY, response_format=SCHEMA, vessel={"builtin_tools": ["web_search"]})
    found = routed(world=TODAY, response_format=SCHEMA, vessel={"task_type": "research"})

    assert found.builtin_tools == ()
    assert any("structured output" in reason for reason in found.reasons)


def test_an_unknown_name_is_a_404_with_a_suggestion() -> None:
    """A misspelt model, tier or fallback names what was probably meant."""
    wishes: list[dict[str, Any]] = [{"model": "gpt-oss-20b"}, {"vessel": {"fallback": ["gpt-oss-20b"]}}]
    for wish in wishes:
        with pytest.raises(UnknownModel, match=OSS20):
            routed(**wish)
    with pytest.raises(UnknownModel, match="Did you mean balanced") as caught:
        routed(vessel={"tier": "balance"})
    assert caught.value.param == "vessel.tier"


def test_a_long_prompt_skips_to_a_model_with_room() -> None:
    """A window too small leaves the chain; when all are, the prompt is refused with its size."""
    assert models(routed(model="allam-2-7b", world=TODAY, tokens=5_000)) == [OSS20]
    with pytest.raises(ContextLengthExceeded, match=r"about 200000 tokens; .* at most 131072"):
        routed(world=TODAY, tokens=200_000)


def test_the_answer_needs_room_as_well() -> None:
    """Groq counts prompt and answer against one window."""
    with pytest.raises(ContextLengthExceeded):
        routed(world=TODAY, tokens=100_000, max_completion_tokens=60_000)


def test_nothing_served_is_an_outage_that_says_so() -> None:
    """With no model of the chain served the answer is a 503 with the cure."""
    with pytest.raises(Unreachable, match=r"vessel models --refresh") as caught:
        routed(world=Availability(frozenset(), frozenset(), TODAY.today))
    assert caught.value.http_status == 503


@pytest.mark.parametrize("model_id", [model.id for model in REGISTRY.routable()])
def test_every_routable_model_can_be_named_today(model_id: str) -> None:
    """Each of them ends on a model that is served, in a tier that exists."""
    found = routed(model=model_id, world=TODAY)

    assert TODAY.serves(REGISTRY.model(found.model))
    assert all(hop.tier in REGISTRY.tiers for hop in found.hops)
    assert len(set(models(found))) == len(found.hops)


def test_a_dead_successor_hands_on_its_fallbacks() -> None:
    """With 8b retired and its successor 20b down, every ultra_fast job was once refused while 120b was served."""
    world = Availability(frozenset({OSS120, QWEN}), frozenset(), date(2026, 11, 23))
    for wish in ({}, {"task_type": "classification"}, {"tier": "ultra_fast"}):
        found = routed(world=world, vessel=wish)
        assert (found.tier, models(found)[0]) == ("ultra_fast", OSS120)
    with pytest.raises(Unreachable):
        routed(world=world, vessel={"tier": "ultra_fast", "fallback": "none"})
