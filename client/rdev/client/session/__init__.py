"""A process in the background that has imported everything, and runs commands by forking."""
