"""One module per rule: `run` reads, calls the rooms that compute, and writes."""
