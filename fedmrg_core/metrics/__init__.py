"""Measures of texts, findings and runs, and their intervals."""
