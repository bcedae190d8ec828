"""What a server that is honest but curious can read from one client's update, for every task."""
