"""Identities on a chain: who may contribute to a run, what was contributed, and an audit of both (`docs/identity.md`)."""
