"""Vessel for programs that speak the Model Context Protocol: tools, resources, prompts and tasks over the client."""
