"""The headers of a rate limit, for answers that count against it.

`RateLimit-Policy` and `RateLimit` are those of draft 10 of the IETF:
https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class RateLimit:
    """At most `quota` requests in `window` seconds. `name`: what is counted, as the headers name it."""

    name: str
    quota: int
    window: int

    def headers(self, left: int, *, seconds: int | None = None) -> dict[str, str]:
        """Return the headers. `left`: further requests that are accepted now. `seconds`: until there are more.

        >>> RateLimit("upgrades", 60, 3600).headers(0, seconds=90)
        {'RateLimit-Policy': '"upgrades";q=60;w=3600', 'RateLimit': '"upgrades";r=0;t=90'}
        """
        until = f";t={seconds}" if seconds is not None else ""
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.quota};w={self.window}',
            "RateLimit": f'"{self.name}";r={max(0, left)}{until}',
        }
