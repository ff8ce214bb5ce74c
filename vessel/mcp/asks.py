"""What the tools take. Descriptions are written for the model that chooses the arguments."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vessel.wire import MOST_COST_USD, OnOutage, Priority, SpeedPriority, TaskType

LONGEST_PROMPT = 1_000_000
MOST_LINES = 10_000
LONGEST_WAIT_S = 3600
DEFAULT_WAIT_S = 300
MOST_CHARS, DEFAULT_CHARS = 200_000, 40_000

Duration = Annotated[float | str, Field(description="Seconds, or a text like 90s, 15m, 2h.")]
PromptText = Annotated[
    str, Field(min_length=1, max_length=LONGEST_PROMPT, description="What to ask, with all the context it needs.")
]
WaitS = Annotated[
    float,
    Field(gt=0, le=LONGEST_WAIT_S, description="How long to wait for the answer, in seconds. The job goes on after."),
]
MaxChars = Annotated[
    int, Field(ge=100, le=MOST_CHARS, description="At most so many characters of the answer; get_job reads the rest.")
]
JobId = Annotated[
    str, Field(pattern="^job_[0-9a-f]{32}$", description="The id of a job, as submit_job and query give it.")
]
BatchId = Annotated[
    str, Field(pattern="^batch_[0-9a-f]{32}$", description="The id of a batch, as submit_batch gives it.")
]


class Taken(BaseModel):
    """Arguments; unknown ones are refused with the names there are."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Nothing(Taken):
    """No arguments."""


class Wishes(Taken):
    """Which model serves a request and how, in the words of the client's keyword arguments."""

    model: (
        Annotated[
            str, Field(min_length=1, max_length=200, description="A model id. Leave out to let the router choose.")
        ]
        | None
    ) = None
    tier: Annotated[str, Field(max_length=64, description="The tier to use instead of the router's choice.")] | None = (
        None
    )
    task_type: Annotated[TaskType, Field(description="What the prompt is for; decides the tier.")] | None = None
    speed_priority: Annotated[SpeedPriority, Field(description="How much speed counts over quality.")] | None = None
    system: Annotated[str, Field(max_length=LONGEST_PROMPT, description="A system message.")] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, description="Sampling temperature.")] | None = None
    max_completion_tokens: (
        Annotated[int, Field(ge=1, le=1_000_000, description="At most so many tokens of answer, reasoning included.")]
        | None
    ) = None
    reasoning_effort: (
        Annotated[
            Literal["none", "default", "low", "medium", "high"], Field(description="How long a reasoning model thinks.")
        ]
        | None
    ) = None
    max_cost_usd: (
        Annotated[Decimal, Field(gt=0, le=MOST_COST_USD, description="Refuse what could cost more than this, in USD.")]
        | None
    ) = None

    def options(self) -> dict[str, Any]:
        """Return what was given as keyword arguments of the client."""
        given = self.model_dump(exclude_none=True)
        return {name: value for name, value in given.items() if name in _WISHES}


class Running(Wishes):
    """The same, and what happens while the job waits."""

    deadline: Annotated[Duration, Field(description="Expire the job after this: seconds, or 90s, 15m, 2h.")] | None = (
        None
    )
    on_outage: (
        Annotated[
            OnOutage, Field(description="When its models cannot be reached: wait, use the failover model, or fail.")
        ]
        | None
    ) = None
    fallback: (
        Annotated[
            Literal["chain", "none"],
            Field(description="Whether another model may serve when the chosen one cannot; the answer names what ran."),
        ]
        | None
    ) = None
    tags: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16, description="Labels by which usage can be grouped."),
        ]
        | None
    ) = None
    idempotency_key: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=255,
                pattern=r"^[\x20-\x7e]+$",
                description="A text of your own for this request: sent again with the same key, it is the same job.",
            ),
        ]
        | None
    ) = None


class Waiting(Running):
    """The same for a call that waits for its answer."""

    timeout_s: WaitS = DEFAULT_WAIT_S
    max_chars: MaxChars = DEFAULT_CHARS


class Query(Waiting):
    """Arguments of query and analyze."""

    prompt: PromptText
    json_schema: (
        Annotated[dict[str, Any], Field(description="A JSON schema: the answer is JSON that follows it.")] | None
    ) = None


class GenerateCode(Waiting):
    """Arguments of generate_code."""

    prompt: Annotated[str, Field(min_length=1, max_length=LONGEST_PROMPT, description="What the code is to do.")]
    language: (
        Annotated[
            str, Field(min_length=1, max_length=40, pattern=r"^[\w+#. -]+$", description="For example python or sql.")
        ]
        | None
    ) = None


class Research(Waiting):
    """Arguments of research."""

    query: Annotated[str, Field(min_length=1, max_length=LONGEST_PROMPT, description="What to find out.")]
    tools: Annotated[
        list[Literal["web_search", "code_execution"]],
        Field(min_length=1, max_length=2, description="Built-in tools that the model may use."),
    ] = ["web_search"]
    max_results: Annotated[int, Field(ge=1, le=100, description="At most so many sources.")] | None = None


class Execute(Waiting):
    """Arguments of execute."""

    task: Annotated[str, Field(min_length=1, max_length=LONGEST_PROMPT, description="What is to be computed.")]
    code: (
        Annotated[str, Field(max_length=LONGEST_PROMPT, description="Code to run; left out, it is written.")] | None
    ) = None
    tools: Annotated[
        list[Literal["code_execution", "web_search"]],
        Field(min_length=1, max_length=2, description="Built-in tools that the model may use."),
    ] = ["code_execution"]


class SubmitJob(Running):
    """Arguments of submit_job."""

    prompt: PromptText
    priority: Annotated[Priority, Field(description="The lane that the job waits in.")] | None = None
    max_attempts: Annotated[int, Field(ge=1, le=20, description="At most so many calls upstream.")] | None = None


class GetJob(Taken):
    """Arguments of get_job."""

    job_id: JobId
    wait_s: Annotated[float, Field(ge=0, le=LONGEST_WAIT_S, description="Wait up to so many seconds for its end.")] = 0
    offset: Annotated[int, Field(ge=0, description="Begin at this character of the answer.")] = 0
    max_chars: MaxChars = DEFAULT_CHARS


class Cancel(Taken):
    """Arguments of cancel_job."""

    job_id: Annotated[str, Field(pattern="^(job|batch)_[0-9a-f]{32}$", description="The id of a job, or of a batch.")]


class Line(Taken):
    """One request of a batch."""

    prompt: PromptText
    custom_id: Annotated[str, Field(min_length=1, max_length=512, description="Your name for its result.")] | None = (
        None
    )
    model: Annotated[str, Field(min_length=1, max_length=200, description="A model id.")] | None = None
    tier: Annotated[str, Field(max_length=64, description="A tier.")] | None = None
    task_type: TaskType | None = None
    system: Annotated[str, Field(max_length=LONGEST_PROMPT)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class SubmitBatch(Taken):
    """Arguments of submit_batch."""

    requests: (
        Annotated[
            list[Line], Field(min_length=1, max_length=MOST_LINES, description="The requests. Either this or path.")
        ]
        | None
    ) = None
    path: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=4096,
                description="A JSONL batch file on the server's machine; only over stdio.",
            ),
        ]
        | None
    ) = None
    window: Annotated[
        str, Field(pattern=r"^\d{1,3}[hd]$", description="24h to 7d: lines that have not run by then expire.")
    ] = "24h"
    metadata: Annotated[dict[str, str], Field(max_length=16, description="Labels that the batch carries.")] | None = (
        None
    )
    idempotency_key: Annotated[
        str,
        Field(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$",
              description="A text of your own: sent again with the same key, it is the same batch."),
    ] | None = None  # fmt: skip

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.requests is None) == (self.path is None):
            raise ValueError("give either requests or path")
        return self


class GetBatch(Taken):
    """Arguments of get_batch."""

    batch_id: BatchId
    wait_s: Annotated[float, Field(ge=0, le=LONGEST_WAIT_S, description="Wait up to so many seconds for its end.")] = 0
    part: Annotated[
        Literal["progress", "results", "errors"],
        Field(description="How far it is; or a page of the results so far; or of the lines that failed."),
    ] = "progress"
    cursor: (
        Annotated[str, Field(pattern=r"^\d{1,9}-\d{1,9}-\d{1,3}$", description="The next_cursor of the page before.")]
        | None
    ) = None
    limit: Annotated[int, Field(ge=1, le=100, description="At most so many lines of a page.")] = 20
    max_chars: Annotated[
        int, Field(ge=100, le=MOST_CHARS, description="At most so many characters of each line's answer.")
    ] = 2000


class ListModels(Taken):
    """Arguments of list_models."""

    tier: Annotated[str, Field(max_length=64, description="Only models of this tier.")] | None = None
    only_served: Annotated[bool, Field(description="Leave out models that are not served now.")] = False


class Route(Wishes):
    """Arguments of route."""

    prompt: PromptText
    context: (
        Annotated[
            dict[str, Any],
            Field(max_length=32, description="Hints for the router, such as requires_tools or speed_critical."),
        ]
        | None
    ) = None


class UsageOf(Taken):
    """Arguments of usage."""

    since: (
        Annotated[str, Field(max_length=64, description="An age like 7d, or ISO 8601; a day ago without.")] | None
    ) = None
    until: Annotated[str, Field(max_length=64, description="The same; now without it.")] | None = None
    by: Annotated[Literal["model", "tier", "day", "tag", "vessel"], Field(description="What to group by.")] = "model"


_WISHES = frozenset(Running.model_fields) | {"priority", "max_attempts"}
