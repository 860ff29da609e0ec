"""Rendering for people; no I/O."""
