"""What to do about a job that ended without a result, by its reason."""

from __future__ import annotations

from vessel.upstream.outcome import Reason

WAYS_OUT: dict[str, str] = {
    Reason.RATE_LIMITED: "Groq's limits were used up for as long as it could wait. Run it again, or give it a longer "
    "deadline or max_wait.",
    Reason.TOO_LARGE: "One request is larger than a limit allows, so waiting never helps. Shorten it, lower "
    "max_completion_tokens, or name a model with higher limits.",
    Reason.MODEL_GONE: "The model is not served any more. Name another one: `vessel models` lists them.",
    Reason.OVER_CAPACITY: "Groq had no room on this model. Run it again later.",
    Reason.SERVER_ERROR: "Groq answered with errors again and again. Run it again later; see status.groq.com.",
    Reason.BAD_REQUEST: "Groq refuses this request as it is. Correct it, then submit it as a new job.",
    Reason.CONTEXT_LENGTH: "The prompt is longer than the model's window. Shorten it or name one with a larger window.",
    Reason.TOOL_USE_FAILED: "The model called a tool in an unreadable form. Run it again, or simplify the tools.",
    Reason.JSON_VALIDATE_FAILED: "The model's answer did not keep to the JSON that was asked for. Run it again, or "
    "simplify the schema.",
    Reason.UNAUTHORIZED: "Groq does not take the API key. Set a valid GROQ_API_KEY for the workers, then run it again.",
    Reason.FORBIDDEN: "Groq refuses this key or this network. Check the key's permissions, then run it again.",
    Reason.SPEND_LIMIT: "The spend limit of the Groq account is reached. Raise it at Groq, then run it again.",
    Reason.DEPENDENCY_FAILED: "Something that Groq depends on failed. Run it again later.",
    Reason.CONNECT_FAILED: "Groq could not be reached. Check the network of the workers, then run it again.",
    Reason.CONNECTION_LOST: "The connection broke before the answer was there. Run it again.",
    Reason.TIMEOUT: "The call took longer than it may. Run it again, or ask for a shorter answer.",
    Reason.PROTOCOL_ERROR: "Groq's answer could not be used. Run it again.",
    Reason.RESPONSE_TOO_LARGE: "The answer is larger than is kept. Ask for less in one request.",
    Reason.CANCELLED: "It was cancelled while it ran. Run it again if it is still wanted.",
    Reason.NO_KEY: "The workers have no key to call with. Set GROQ_API_KEY for them, then run it again.",
    Reason.UNPROCESSABLE: "The model could not do what was asked. Run it again, or put the request otherwise.",
    Reason.MAINTENANCE: "It was not to wait for the end of a maintenance. Run it again when that is over.",
    Reason.BREAKER_OPEN: "Too many calls had gone wrong, and it was not to wait. Run it again once it is closed.",
    Reason.OVER_BUDGET: "A spend cap is reached. Raise it with `vessel budget set`, or wait for the next day or month.",
    Reason.LACKS_TOOLS: "The model has not the built-in tools that were asked for. Name one that has them, or leave it "
    "to the tier.",
    "attempts_exhausted": "Every attempt went wrong; the timeline tells how. Run it again, or raise max_attempts.",
    "deadline": "It could not run in time. Submit it with a longer deadline, or with a higher priority.",
    "max_wait": "It waited longer than its max_wait. Submit it with a longer one, or with a higher priority.",
    "expired": "Its time was over before it could run. Submit it with a longer deadline.",
    "input_gone": "The batch's input file is not there any more. Upload it again and make a new batch.",
    "poison_job": "Its worker was lost again and again while it ran. Look at the request before running it again.",
    "stream_broken": "The answer broke off after its first pieces had been read. Run it again.",
    "no_workers": "No worker lived to serve it. Start one with `vessel worker`, then run it again.",
    "model_not_found": "There is no such model or tier. `vessel models` lists them.",
    "unsupported_content": "No model that may serve it takes this content. Name one that does.",
    "max_cost_too_small": "It could cost more than its max_cost_usd. Raise the cap, or shorten the request.",
    "invalid_request": "The request is not valid. Correct it, then submit it as a new job.",
}
OTHERWISE = "The timeline tells what happened. Run it again if the cause is gone."


def way_out(reason: str) -> str:
    """Say what to do about a reason."""
    return WAYS_OUT.get(reason, OTHERWISE)
