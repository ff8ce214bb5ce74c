"""The commands themselves: names, arguments and help. Only typer is imported here; the work is done elsewhere."""
