"""What is known of a problem between one solver and the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Progress:
    """The best offsets so far, who found them, and a height that no allocation is below."""

    offsets: Mapping[str, int]
    height_bytes: int
    lower_bound_bytes: int
    method: str

    def reaches(self, target_bytes: int) -> bool:
        """Whether the height is at most the target, or the target is known to be out of reach and
        the height the least possible.
        """
        return self.height_bytes <= max(target_bytes, self.lower_bound_bytes)

    def with_bound(self, lower_bound_bytes: int) -> Progress:
        """With a greater lower bound, where this one is greater."""
        return replace(self, lower_bound_bytes=max(self.lower_bound_bytes, lower_bound_bytes))

    def with_offsets(self, offsets: Mapping[str, int], height_bytes: int, method: str) -> Progress:
        """With better offsets, where these are lower."""
        if height_bytes >= self.height_bytes:
            return self
        return replace(self, offsets=offsets, height_bytes=height_bytes, method=method)
