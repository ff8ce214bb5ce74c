"""What answers a call: Groq today, an OpenAI-compatible endpoint later; every ending of a call is data."""
