"""What one update of a report model gives away: the words of its reports, and its images."""
