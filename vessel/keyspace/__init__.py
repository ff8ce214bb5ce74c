"""Redis: every key, every script, every connection; nothing else in Vessel imports redis."""
