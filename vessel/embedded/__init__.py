"""A real Redis-compatible server for machines that have none, kept for as long as its owner lives."""

from vessel.embedded.server import EmbeddedServer, remove_server_file, write_private, write_server_file

__all__ = ["EmbeddedServer", "remove_server_file", "write_private", "write_server_file"]
