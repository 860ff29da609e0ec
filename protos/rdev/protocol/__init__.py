"""The contract that agent and client obey, in dataclasses and pure functions."""
