"""What keeps a job: zygote, keeper and supervisor. Standard library only."""
