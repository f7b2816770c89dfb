"""The containers, built and run by an engine of the tests' own; the systemd units, read by systemd."""
