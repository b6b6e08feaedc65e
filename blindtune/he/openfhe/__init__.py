"""OpenFHE beside SEAL: an evaluation engine, a key owner's side, and the shares of a joint key."""
