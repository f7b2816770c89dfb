"""How long something will take, and how far off that may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds that it will take, and between what it most likely lies."""

    seconds: float
    low_s: float
    high_s: float

    @property
    def words(self) -> str:
        """For people, for example ``about 4 min (3 to 7)``."""
        unit, size = ("s", 1) if self.high_s < 120 else ("min", 60) if self.high_s < 7200 else ("h", 3600)
        middle, low, high = (
            f"{value / size:.{0 if size < 3600 else 1}f}" for value in (self.seconds, self.low_s, self.high_s)
        )
        return f"about {middle} {unit}" if low == high else f"about {middle} {unit} ({low} to {high})"
