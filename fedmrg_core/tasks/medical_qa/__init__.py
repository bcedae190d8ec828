"""Medical question answering: LoRA on a causal LM, in a federation of hospitals that know different things."""
