"""The `vessel` command. Modules here import only typer at their top, so that help and completion stay quick."""
