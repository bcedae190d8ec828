"""What a federation can train, a folder a task."""
