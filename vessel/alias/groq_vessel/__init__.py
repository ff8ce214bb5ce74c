"""The public import: `from groq_vessel import GroqClient`."""
