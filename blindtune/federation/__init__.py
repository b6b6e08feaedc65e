"""Hospitals that train together: identities, secure aggregation, rounds."""
