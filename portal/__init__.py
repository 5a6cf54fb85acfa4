"""The operations portal: what every app stands on. README.md has the map."""

__version__ = "0.1.0"
