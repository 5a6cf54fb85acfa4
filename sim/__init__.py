"""A deterministic simulation of the engine in one process (docs/simulation.md). Nothing imports it."""
