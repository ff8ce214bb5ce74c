"""Jobs: the model with its state table, and the only writer of job state."""
