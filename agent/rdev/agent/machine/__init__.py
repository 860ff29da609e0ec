"""The machine that the agent runs on: what a job may stumble over there."""
