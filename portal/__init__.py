"""The operations portal: the code that all apps share."""

__version__ = "0.1.0"
