"""Medical questions as data: one row a question, a synthetic world of invented facts, readers of public sets [ours]."""
