"""Several hospitals, one encrypted training: a joint key that no one holds, heads that only all can open."""
