"""Datasets: one module each, all returning the same Study schema (`fedmrg_core.data.study`)."""
