"""Debug sessions: one adapter process each, and the proxy between it and the client."""
