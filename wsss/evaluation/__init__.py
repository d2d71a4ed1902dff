"""Scoring against human masks: the only code that opens them."""
