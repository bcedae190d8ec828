"""What is read and written: whole or not at all, strictly, and which code did it."""
