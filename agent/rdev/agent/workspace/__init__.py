"""Workspaces on the host: the content store, and trees brought up to date in one step."""
