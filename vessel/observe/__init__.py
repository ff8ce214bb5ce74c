"""What people and machines see of Vessel: logs now, metrics and traces later; never a prompt, an answer or a key."""
