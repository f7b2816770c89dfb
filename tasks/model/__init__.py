"""Frozen data that every layer shares: domains, hosts, requests, findings, run records, errors and ports."""
