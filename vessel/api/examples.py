"""What requests and answers look like, for OpenAPI."""

from __future__ import annotations

import json
from typing import Any

JOB_ID = "job_0123456789abcdef0123456789abcdef"
_USAGE = {"prompt_tokens": 12, "completion_tokens": 20, "total_tokens": 32}
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "What is a lease in Redis?"}]}
ERROR = {
    "error": {
        "message": "There is no model or tier 'gpt-oss'. Did you mean openai/gpt-oss-20b?",
        "type": "not_found_error",
        "code": "model_not_found",
        "param": "model",
    }
}
JOB: dict[str, Any] = {
    "id": JOB_ID,
    "object": "job",
    "state": "succeeded",
    "tier": "ultra_fast",
    "model": "openai/gpt-oss-20b",
    "vessel": "groq",
    "priority": "normal",
    "created_at": "2026-11-27T12:00:00.000Z",
    "finished_at": "2026-11-27T12:00:00.412Z",
    "reason": None,
    "usage": _USAGE,
    "cost_usd": 0.00000855,
    "retry_of": None,
}
ANSWER: dict[str, Any] = {
    "id": "chatcmpl-2f1c7c0e-7c3f-4b3e-9d0a-6f5f0a1b2c3d",
    "object": "chat.completion",
    "created": 1795780800,
    "model": "openai/gpt-oss-20b",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "A key with a time to live that its owner renews."},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": _USAGE,
    "x_groq": {"id": "req_01k9xr3v9hf1x8m7a2b3c4d5e6"},
}


def schema(name: str) -> dict[str, Any]:
    """Point to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def answers(name: str, text: str, example: object) -> dict[str, Any]:
    """Describe an answer."""
    return {"description": text, "content": {"application/json": {"schema": schema(name), "example": example}}}


def body(name: str, example: object) -> dict[str, Any]:
    """Describe a request's body."""
    return {"required": True, "content": {"application/json": {"schema": schema(name), "example": example}}}


CHAT_BODY = body("ChatCompletionRequest", CHAT)
JOB_BODY = body("ChatRequest", CHAT | {"vessel": {"priority": "normal", "deadline": "2h", "tags": {"team": "docs"}}})
CHUNK = ANSWER | {
    "object": "chat.completion.chunk",
    "choices": [{"index": 0, "delta": {"content": "A key"}, "logprobs": None, "finish_reason": None}],
}
COMPLETION = answers("ChatCompletion", "Groq's answer, as it came; with `stream` its chunks, then [DONE].", ANSWER) | {
    "headers": {
        "x-vessel-job-id": {"description": "The job that it was.", "schema": {"type": "string"}},
        "x-vessel-model": {"description": "The model that answered.", "schema": {"type": "string"}},
        "x-vessel-attempts": {"description": "How many calls it took.", "schema": {"type": "string"}},
    }
}
COMPLETION["content"]["text/event-stream"] = {
    "schema": {"type": "string"},
    "example": f"data: {json.dumps(CHUNK)}\n\ndata: [DONE]\n\n",
}
