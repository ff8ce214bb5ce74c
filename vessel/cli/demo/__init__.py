"""The demonstration: the whole stack on this machine, with something broken on purpose, and everything checked."""
