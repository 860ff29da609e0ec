"""The agent: the daemon on the GPU machine. It may die at any time; jobs do not notice."""
