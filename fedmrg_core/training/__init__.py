"""One client's update for any task: model interface, steps, rules, optimiser, adapters, checkpoints."""
