"""Figures beside those of plain ``virsh migrate``, measured in pairs on the lab: ``python -m tests.benchmarks``."""
