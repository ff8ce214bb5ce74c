"""The gate in front of Groq's limits: what a call will charge, and whether it may go now."""
