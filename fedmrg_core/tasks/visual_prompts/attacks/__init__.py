"""What an update gives away: images of a client's batch, rebuilt from what it sent, by a server that is honest but curious."""
