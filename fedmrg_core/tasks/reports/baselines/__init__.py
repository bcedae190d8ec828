"""Report generators without an LLM, trained whole: the comparison models of the benchmark."""
