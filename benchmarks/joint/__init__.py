"""A study with a joint key, as benchmarks run it: its terms, its roles, and what comes of it."""
