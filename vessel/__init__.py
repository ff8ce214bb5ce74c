"""Vessel: jobs for the Groq API, queued by model tier, kept within its limits, each with its usage and cost."""

__version__ = "0.1.0"
