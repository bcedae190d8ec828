"""What an update gives away: images of a batch, rebuilt by a server that is honest but curious."""
