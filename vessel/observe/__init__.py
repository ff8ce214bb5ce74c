"""What people and machines see of Vessel: logs, metrics and traces; never a prompt, an answer or a key."""
