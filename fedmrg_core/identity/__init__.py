"""Identities on a chain: who may contribute to a run, what was contributed, an audit of both (`docs/identity.md`)."""
