"""Ranks of logits that are at hand, without a forward."""

from studies.conformance.views import rank_logits

__all__ = ["rank_logits"]
