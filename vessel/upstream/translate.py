"""Make the body for one model of the chain out of the caller's body, and say what had to change.

The caller's fields that mean the same everywhere are passed on untouched. A field whose meaning changes, or that the
model has no counterpart for, always leaves a note; dropping in silence is what this module exists to prevent.
"""

from __future__ import annotations

from typing import Any

from vessel.wire import BUILTIN_NAMES

_AS_TOOL = {
    "web_search": "browser_search",
    "visit_website": "browser_search",  # its browser opens pages by itself
    "browser_automation": "browser_search",
    "code_execution": "code_interpreter",
}
_NEARLY = frozenset({"browser_automation"})
_AS_ENABLED = {"code_execution": "code_interpreter"}
_ONLY_GROQ = (
    *("documents", "citation_options", "disable_tool_validation", "search_settings", "compound_custom"),
    *("reasoning_format", "include_reasoning"),
)
_GROQS_SERVICE_TIERS = frozenset({"on_demand", "flex", "performance"})
# Without a counterpart outside of the Compound systems (docs/compound/built-in-tools).
_ONLY_COMPOUND = ("search_settings", "include_domains", "exclude_domains")


def translate(
    body: dict[str, Any],
    *,
    model_id: str,
    features: frozenset[str],
    reasoning_efforts: tuple[str, ...],
    builtin_tools: tuple[str, ...],
    max_completion_tokens: int,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the body to send to `model_id` and one note per change of meaning; `body` itself is not changed.

    `builtin_tools` are named as the seed does (wire.BuiltinTool); `reasoning_efforts` what the model takes, weakest
    first. Which tool is what on which model: groq-facts 5.
    """
    translated, notes = dict(body), list[str]()
    translated["model"] = model_id
    translated.pop("stream", None)
    translated.pop("stream_options", None)
    _budget(translated, max_completion_tokens, notes)
    _builtin_tools(translated, model_id, features, builtin_tools, notes)
    _reasoning_effort(translated, model_id, reasoning_efforts if "reasoning" in features else (), notes)
    _reasoning_shown(translated, model_id, features, notes)
    _response_format(translated, model_id, features, notes)
    return translated, tuple(notes)


def leave_out_groqs(body: dict[str, Any], model_id: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a body without the fields that only Groq reads, for an endpoint that may refuse them, and its notes."""
    dropped = [name for name in _ONLY_GROQ if name in body]
    if body.get("service_tier") in _GROQS_SERVICE_TIERS:
        dropped.append("service_tier")
    left = {name: value for name, value in body.items() if name not in dropped}
    return left, tuple(f"{name} was dropped: it means nothing to {model_id}" for name in dropped)


def _budget(body: dict[str, Any], tokens: int, notes: list[str]) -> None:
    older = body.pop("max_tokens", None)
    wanted = body.get("max_completion_tokens")
    wanted = older if wanted is None else wanted
    body["max_completion_tokens"] = tokens
    if wanted is not None and wanted != tokens:
        notes.append(f"max_completion_tokens was changed from {wanted} to {tokens}")


def _builtin_tools(
    body: dict[str, Any], model_id: str, features: frozenset[str], asked: tuple[str, ...], notes: list[str]
) -> None:
    wanted = _taken_from_tools(body, asked)
    choice = _mapping(body.get("tool_choice")).get("type")
    if str(choice) in BUILTIN_NAMES:  # no choice that Groq knows: it names functions only
        body["tool_choice"] = "required"
    if model_id.startswith("groq/compound"):
        if wanted:
            _enable_on_compound(body, wanted)
        if body.get("tool_choice") == "none":
            notes.append(f"tool_choice none was dropped: {model_id} decides by itself which tools it uses")
        _no_choice_without_tools(body)
        return
    wanted = _taken_from_compound(body, model_id, wanted, notes)
    dropped = [name for name in _ONLY_COMPOUND if body.pop(name, None) is not None]
    notes += [f"{name} was dropped: {model_id} cannot restrict its searches" for name in dropped]
    if "builtin_tools" not in features:
        notes += [
            f"{name} was dropped: {model_id} has no built-in tools and answers from what it knows" for name in wanted
        ]
    elif wanted and _mapping(body.get("response_format")).get("type") in {"json_object", "json_schema"}:
        notes += [f"{name} was dropped: {model_id} takes no tools with a response_format" for name in wanted]
    else:
        _add_entries(body, model_id, wanted, notes)
    _no_choice_without_tools(body)


def _taken_from_tools(body: dict[str, Any], asked: tuple[str, ...]) -> tuple[str, ...]:
    """Take the built-in entries out of `tools` and return them in our names, after those asked for."""
    tools = [(str(_mapping(tool).get("type")), tool) for tool in _list(body.get("tools"))]
    found = [BUILTIN_NAMES[kind] for kind, _ in tools if kind in BUILTIN_NAMES]
    if found:
        body["tools"] = [tool for kind, tool in tools if kind not in BUILTIN_NAMES]
    return tuple(dict.fromkeys((*asked, *found)))


def _add_entries(body: dict[str, Any], model_id: str, wanted: tuple[str, ...], notes: list[str]) -> None:
    """Add the entries of built-in tools behind the caller's own functions, each once."""
    lost = [name for name in wanted if name not in _AS_TOOL]
    notes += [f"{name} was dropped: {model_id} has nothing like it" for name in lost]
    notes += [f"{name} became {_AS_TOOL[name]}: the nearest that {model_id} has" for name in wanted if name in _NEARLY]
    entries = dict.fromkeys(_AS_TOOL[name] for name in wanted if name in _AS_TOOL)
    if entries:
        body["tools"] = [*_list(body.get("tools")), *({"type": kind} for kind in entries)]


def _no_choice_without_tools(body: dict[str, Any]) -> None:
    """Leave out what speaks about tools where there are none: Groq answers 400 to it."""
    if not body.get("tools"):
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            body.pop(name, None)


def _enable_on_compound(body: dict[str, Any], wanted: tuple[str, ...]) -> None:
    custom = _mapping(body.get("compound_custom"))
    tools = _mapping(custom.get("tools"))
    enabled = _list(tools.get("enabled_tools"))
    if "browser_automation" in wanted:
        wanted = (*wanted, "web_search")  # Groq refuses the one without the other
    names = dict.fromkeys(_AS_ENABLED.get(name, name) for name in wanted)
    enabled += [name for name in names if name not in enabled]
    body["compound_custom"] = custom | {"tools": tools | {"enabled_tools": enabled}}


def _taken_from_compound(
    body: dict[str, Any], model_id: str, asked: tuple[str, ...], notes: list[str]
) -> tuple[str, ...]:
    """Take `compound_custom` out, which only Compound reads, and return its tools in our names."""
    custom = _mapping(body.pop("compound_custom", None))
    wanted = list(asked)
    tools = _mapping(custom.pop("tools", None))
    for native in _list(tools.pop("enabled_tools", None)):
        if str(native) in BUILTIN_NAMES:
            wanted.append(BUILTIN_NAMES[str(native)])
        else:
            notes.append(f"a tool of compound_custom was dropped: {model_id} has nothing like it")
    if custom or tools:
        notes.append(f"compound_custom was dropped: {model_id} is not a Compound system")
    return tuple(dict.fromkeys(wanted))


def _reasoning_effort(body: dict[str, Any], model_id: str, efforts: tuple[str, ...], notes: list[str]) -> None:
    asked = body.get("reasoning_effort")
    if asked is None or asked in efforts:
        return
    del body["reasoning_effort"]
    if not efforts:
        notes.append(f"reasoning_effort {asked} was dropped: {model_id} does not reason")
    elif asked == "none":
        body["reasoning_effort"] = efforts[0]
        notes.append(f"reasoning_effort none became {efforts[0]}: {model_id} cannot stop reasoning")
    elif asked != "default":  # leaving `default` out means the same
        notes.append(f"reasoning_effort {asked} was dropped: {model_id} uses its own")


def _reasoning_shown(body: dict[str, Any], model_id: str, features: frozenset[str], notes: list[str]) -> None:
    """Carry over whether the reasoning is shown: `reasoning_format`, or `include_reasoning` on gpt-oss."""
    if "reasoning" not in features:
        dropped = [name for name in ("reasoning_format", "include_reasoning") if body.pop(name, None) is not None]
        notes += [f"{name} was dropped: {model_id} does not reason" for name in dropped]
    elif "gpt-oss" in model_id and "reasoning_format" in body:
        form = body.pop("reasoning_format")
        if form is None or body.get("include_reasoning") is not None:
            return
        body["include_reasoning"] = form != "hidden"
        if form == "raw":
            notes.append(f"reasoning_format raw became parsed: {model_id} keeps its reasoning out of the content")


def _response_format(body: dict[str, Any], model_id: str, features: frozenset[str], notes: list[str]) -> None:
    form = _mapping(body.get("response_format"))
    schema = _mapping(form.get("json_schema"))
    if form.get("type") == "json_schema" and schema.get("strict") is True and "strict_schema" not in features:
        body["response_format"] = form | {"json_schema": schema | {"strict": False}}
        notes.append(f"the JSON schema is best effort on {model_id}, not strict")


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list) else []
