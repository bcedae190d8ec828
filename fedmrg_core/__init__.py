"""The library behind the FedMRG companion: small files named after the paper's nouns (arXiv 2506.17562)."""

__version__ = "0.1.0"
