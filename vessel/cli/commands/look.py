"""What could serve a request: route, models, tiers (they work without Redis, by the registry's dates), and limits."""

from typing import Annotated

from typer import Option

from vessel.cli.commands import options
from vessel.cli.reading import context, given

Refresh = Annotated[bool, Option("--refresh", help="Ask Groq which models it serves to the key, and remember it.")]

Plan = Annotated[bool, Option("--plan", help="Tell how many slots and processes the quota keeps busy.")]
Watch = Annotated[bool, Option("--watch", "-w", help="Look again every second until Ctrl-C.")]


def route(
    text: options.Text,
    *,
    tier: options.Tier = None,
    model: options.Model = None,
    task: options.Task = None,
    speed: options.Speed = None,
    max_tokens: options.MaxTokens = None,
    hints: options.Context = None,
    as_json: options.AsJson = False,
) -> None:
    """Tell which tier and model a prompt would go to, why, and about what it would cost. Submits nothing."""
    from vessel.cli.catalog import show_route

    asked = given(tier=tier, model=model, task_type=task, speed_priority=speed, max_completion_tokens=max_tokens,
                  context=context(hints))  # fmt: skip
    show_route(text, asked, as_json=as_json)


def models(*, refresh: Refresh = False, as_json: options.AsJson = False) -> None:
    """List the models: which are served today, what takes the place of the others, speed, window and price."""
    from vessel.cli.catalog import show_models

    show_models(refresh=refresh, as_json=as_json)


def tiers(*, plan: Plan = False, as_json: options.AsJson = False) -> None:
    """List the tiers: the model that serves each one now, live workers, and jobs that wait for one of them."""
    if plan:
        from vessel.cli.tier_plan import show_plan

        show_plan(as_json=as_json)
        return
    from vessel.cli.catalog import show_tiers

    show_tiers(as_json=as_json)


def limits(*, watch: Watch = False, as_json: options.AsJson = False) -> None:
    """Show the headroom of every limit now, what holds calls back, and who waits. Needs Redis."""
    from vessel.cli.limits import show_limits

    show_limits(watch=watch, as_json=as_json)
