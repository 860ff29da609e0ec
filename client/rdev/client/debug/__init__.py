"""The debugger's laptop side: a protocol client, a terminal view, a port for an IDE."""
