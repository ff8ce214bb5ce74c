"""The REST face: the openai and groq SDKs' own paths, jobs, and what steers and shows the vessel."""
