"""Pages of processors and of routing."""
