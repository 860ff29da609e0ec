"""Workspaces on the host: the synced folders, and the contents behind them."""
