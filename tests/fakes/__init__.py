"""In-memory implementations of the ports; tests/contract holds them to what the real ones do."""
