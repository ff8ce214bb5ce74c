"""The processes of a vessel: all of them, each one alone, and a demonstration."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from vessel.cli.commands import options
from vessel.cli.reading import given

Simulated = Annotated[bool, Option("--sim", help="Use a simulator in place of Groq: no key, no cost.")]
Groups = Annotated[
    list[str] | None,
    Option("--group", metavar="a,b", help="Serve these tiers by one process. May be repeated; others are not served."),
]
TierList = Annotated[str | None, Option("--tiers", metavar="a,b", help="Serve these tiers; all without this.")]
Slots = Annotated[int | None, Option("--concurrency", min=1, max=10_000, metavar="N", help="Jobs at a time.")]
Live = Annotated[bool, Option("--live", help="Use Groq itself: a few jobs, at most 0.05 USD.")]
Host = Annotated[str, Option(metavar="ADDRESS", help="Where to listen.")]
Port = Annotated[int, Option(min=0, max=65535, metavar="PORT", help="0 takes a free one.")]
ApiHost = Annotated[
    str | None, Option("--host", metavar="ADDRESS", help="Where to listen; VESSEL_API_HOST without it.")
]
ApiPort = Annotated[int | None, Option("--port", min=1, max=65535, metavar="PORT", help="VESSEL_API_PORT without it.")]
Http = Annotated[bool, Option("--http", help="Serve streamable HTTP, not standard input and output.")]
McpPort = Annotated[
    int | None, Option("--port", min=1, max=65535, metavar="PORT", help="With --http: VESSEL_MCP_PORT without it.")
]
FlowerHost = Annotated[
    str | None, Option("--host", metavar="ADDRESS", help="Where to listen; VESSEL_FLOWER_HOST without it.")
]
FlowerPort = Annotated[int | None, Option("--port", min=1, max=65535, metavar="PORT", help="Or VESSEL_FLOWER_PORT.")]
AuthFile = Annotated[
    Path | None, Option("--auth-file", metavar="F", help="Lines of user:password; or VESSEL_FLOWER_AUTH_FILE.")
]
Control = Annotated[bool, Option("--control", help="Let those with a login steer workers; read-only without it.")]
NoFlower = Annotated[bool, Option("--no-flower", help="Leave Flower out.")]
World = Annotated[Literal["today", "seed"] | None, Option(help="Models of today, or of October 2025.")]
Plan = Annotated[Literal["developer", "free"] | None, Option(help="Whose rate limits to keep.")]
Scenario = Annotated[Path | None, Option(metavar="F", help="A TOML or JSON file of faults, limits and latency.")]
Scale = Annotated[float | None, Option(min=0, metavar="X", help="Take X times as long as the models; 0: no time.")]
Constant = Annotated[float | None, Option(min=0, metavar="MS", help="Take the same time for every answer.")]
Seed = Annotated[int | None, Option(metavar="N", help="What the dice start from.")]
Keys = Annotated[list[str] | None, Option("--key", metavar="KEY", help="Accept only this key. May be repeated.")]
Log = Annotated[Path | None, Option(metavar="F.jsonl", help="Append every call to this file.")]
OwnUrl = Annotated[
    str | None, Option("--url", metavar="URL", help="Its address for others: start only if GROQ_BASE_URL names it.")
]


def demo(*, live: Live = False, as_json: options.AsJson = False) -> int:
    """Show the whole stack at work on this machine, with a simulator in place of Groq. Exits 1 if anything is wrong."""
    from vessel.cli.demo.run import demonstrate

    return demonstrate(live=live, as_json=as_json)


def up(
    *,
    sim: Simulated = False,
    group: Groups = None,
    concurrency: Slots = None,
    no_flower: NoFlower = False,
    as_json: options.AsJson = False,
) -> int:
    """Run everything until Ctrl-C: Redis where none is set, worker processes, scheduler, API, MCP and Flower."""
    from vessel.cli.supervise import supervise

    return supervise(simulated=sim, groups=group, concurrency=concurrency, flower=not no_flower, as_json=as_json)


def worker(*, tiers: TierList = None, concurrency: Slots = None, as_json: options.AsJson = False) -> None:
    """Serve tiers until SIGTERM: the same as `celery -A workers.app worker -Q power,power.batch`."""
    from vessel.cli.serving import become_worker

    become_worker(tiers, concurrency, as_json=as_json)


def api(*, host: ApiHost = None, port: ApiPort = None, as_json: options.AsJson = False) -> int:
    """Serve the REST API until SIGTERM: the openai and groq SDKs work against it with another base URL."""
    from vessel.cli.rest import serve_rest

    return serve_rest(host, port, as_json=as_json)


def mcp(*, http: Http = False, host: ApiHost = None, port: McpPort = None, as_json: options.AsJson = False) -> int:
    """Serve the Model Context Protocol on standard input and output, for the host that starts it; or over HTTP."""
    from vessel.cli.mcp import serve_mcp

    return serve_mcp(http=http, host=host, port=port, as_json=as_json)


def flower(
    *,
    host: FlowerHost = None,
    port: FlowerPort = None,
    auth_file: AuthFile = None,
    control: Control = False,
    as_json: options.AsJson = False,
) -> None:
    """Serve Flower until SIGTERM: every message with its job's id, tier, model and outcome, and the workers."""
    from vessel.cli.flower import become_flower

    become_flower(host, port, auth_file, control=control, as_json=as_json)


def scheduler(*, as_json: options.AsJson = False) -> int:
    """Run the sweeps in a process of their own, until SIGTERM. Workers run them as well."""
    from vessel.cli.sweeping import sweep

    return sweep(as_json=as_json)


def simulate(
    *,
    host: Host = "127.0.0.1",
    port: Port = 8090,
    scenario: Scenario = None,
    world: World = None,
    plan: Plan = None,
    latency_scale: Scale = None,
    latency_ms: Constant = None,
    seed: Seed = None,
    keys: Keys = None,
    log: Log = None,
    url: OwnUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Serve a stand-in for the Groq API: no key, no cost, Groq's limits and faults."""
    from vessel.cli.serving import simulate as serve

    fields = given(world=world, plan=plan, latency_scale=latency_scale, latency_ms=latency_ms, seed=seed)
    fields |= given(keys=tuple(keys or ()) or None)
    serve(host, port, scenario, fields, log, url, as_json=as_json)
