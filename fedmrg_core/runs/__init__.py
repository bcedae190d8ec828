"""What a run is: its settings, rows, folder and code."""
