"""The laptop's half of sync: find the workspace, scan it, send what changed."""
