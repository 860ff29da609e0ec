"""The laptop's half of debugging: a DAP client, a terminal view, a port for an IDE."""
