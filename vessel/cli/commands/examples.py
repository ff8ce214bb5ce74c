"""An example or two of every command, for its help, the reference and the man page; tests run them.

`$job`, `$batch` and `$key` stand for ids that commands print.
"""

EXAMPLES = {
    "demo": ("vessel demo",),
    "up": ("vessel up --sim", "vessel up --group power,balanced --group ultra_fast --concurrency 100"),
    "worker": ("vessel worker --tiers balanced,power --concurrency 200",),
    "scheduler": ("vessel scheduler",),
    "api": ("vessel api --port 8000",),
    "mcp": ("vessel mcp", "vessel mcp --http --port 8081"),
    "flower": ("vessel flower --host 0.0.0.0 --auth-file /etc/vessel/flower-logins",),
    "simulate": ("vessel simulate --port 8090 --latency-ms 50", "vessel simulate --plan free --world seed"),
    "query": ('vessel query "What is a lease in Redis?"', "vessel query --tier ultra_fast --stream - < prompt.txt"),
    "analyze": ('vessel analyze "Evaluate a four-day week." --max-cost 0.05',),
    "code": ('vessel code "Parse a CSV file." --language python > parse.py',),
    "research": ('vessel research "EU agricultural funding 2026" --max-results 3',),
    "submit": (
        'vessel submit "Summarise the minutes ..." --priority batch --deadline 2h --key minutes-9',
        "vessel submit --file work.jsonl --priority batch | vessel wait -",
    ),
    "job": ('vessel job "$job"',),
    "jobs": ("vessel jobs --state parked --since 2h", "vessel jobs --tier power --limit 5 --json"),
    "wait": ('vessel wait "$job" --timeout 60',),
    "cancel": ('vessel cancel "$job"',),
    "retry": ('vessel retry "$job"',),
    "events": ('vessel events "$job" --follow',),
    "route": (
        'vessel route "Compare Redis and Kafka." --speed fast',
        "vessel route hello --context requires_tools=true",
    ),
    "models": ("vessel models", "vessel models --refresh"),
    "tiers": ("vessel tiers", "vessel tiers --plan"),
    "limits": ("vessel limits", "vessel limits --watch"),
    "usage": ("vessel usage --by tier --since 7d --plot", "vessel usage --entries --since today --csv entries.csv"),
    "check": ("vessel check --expect api,mcp", "vessel check --boot --deadline 60"),
    "doctor": ("vessel doctor",),
    "backup": ("vessel backup vessel.vbk",),
    "restore": ("vessel restore vessel.vbk",),
    "batch submit": ("vessel batch submit batch.jsonl --window 48h --max-cost-usd 2 --metadata team=docs",),
    "batch status": ('vessel batch status "$batch"',),
    "batch watch": ('vessel batch watch "$batch"',),
    "batch results": ('vessel batch results "$batch" -o results.jsonl',),
    "batch errors": ('vessel batch errors "$batch" -o errors.jsonl',),
    "batch cancel": ('vessel batch cancel "$batch"',),
    "batch list": ("vessel batch list --limit 5",),
    "batch estimate": ("vessel batch estimate batch.jsonl",),
    "maintenance on": (
        'vessel maintenance on --until 2h --reason "moving Redis"',
        "vessel maintenance on --tier power --until 18:30",
    ),
    "maintenance off": ("vessel maintenance off --tier power", "vessel maintenance off"),
    "maintenance status": ("vessel maintenance status",),
    "budget set": ("vessel budget set --day 5 --month 100", "vessel budget set --tenant acme --day 0.50"),
    "budget show": ("vessel budget show",),
    "budget clear": ("vessel budget clear --tenant acme",),
    "keys create": ("vessel keys create --tenant acme --quota 60/minute --expires 90d --note 'nightly report'",),
    "keys list": ("vessel keys list",),
    "keys revoke": ('vessel keys revoke "$key"',),
    "webhooks list": ("vessel webhooks list --state given_up",),
    "webhooks retry": ('vessel webhooks retry "$job"',),
    "webhooks secret": ("vessel webhooks secret --rotate --overlap 24h",),
}


def epilog(command: str) -> str:
    """Give a command's examples as the end of its help."""
    examples = EXAMPLES[command]
    head = "Example:" if len(examples) == 1 else "Examples:"
    return "\n".join([head, *(f"  {example}" for example in examples)])
