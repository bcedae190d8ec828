"""Everything Flower: the one client app and server app, their engines, the byte ledger, checkpoints."""
