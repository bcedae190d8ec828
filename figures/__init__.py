"""One script for each figure; each reads stored run folders and writes PDF, PNG and CSV."""
