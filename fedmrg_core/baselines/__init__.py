"""The baselines that are trained whole, without an LLM: Transformer, R2Gen, WCL and DCL [related]."""

from fedmrg_core.baselines.build import build_whole_model

__all__ = ["build_whole_model"]
