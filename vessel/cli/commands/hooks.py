"""Webhooks: what became of each, one delivered anew, and the secret that receivers know Vessel by."""

from typing import Annotated, Literal

from typer import Argument, Option

from vessel.cli.commands import options
from vessel.cli.commands.steer import group

StateName = Literal["pending", "delivered", "given_up"]

Of = Annotated[str, Argument(metavar="ID", help="The id of a job, of a batch or of the message.")]
State = Annotated[StateName | None, Option(help="Only webhooks in this state.")]
Limit = Annotated[int, Option(min=1, max=1000, metavar="N", help="At most so many, newest first.")]
Tenant = Annotated[str, Option("--tenant", metavar="NAME", help="Whose webhooks it signs.")]
Rotate = Annotated[bool, Option("--rotate", help="Make a new one; the one before signs as well for a while.")]
Overlap = Annotated[str, Option("--overlap", metavar="SPAN", help="For how long, at a rotation; 0 ends it at once.")]


def list_webhooks(*, state: State = None, limit: Limit = 50, as_json: options.AsJson = False) -> None:
    """List what was or is to be delivered, newest first: to whom, how often tried, what came of it."""
    from vessel.cli.webhooks import show_many

    show_many(state, limit, as_json=as_json)


def retry(webhook_id: Of, *, as_json: options.AsJson = False) -> None:
    """Deliver a webhook anew from now on, also one that was given up or delivered; its id stays the same."""
    from vessel.cli.webhooks import again

    again(webhook_id, as_json=as_json)


def secret(
    *, tenant: Tenant = "default", rotate: Rotate = False, overlap: Overlap = "24h", as_json: options.AsJson = False
) -> None:
    """Show the secret that receivers verify webhooks with; it is made when it is first needed."""
    from vessel.cli.webhooks import secret as tell

    tell(tenant, overlap if rotate else None, as_json=as_json)


webhooks = group(
    "webhooks", "What is sent when jobs and batches end: list, retry, secret.",
    list=list_webhooks, retry=retry, secret=secret,
)  # fmt: skip
