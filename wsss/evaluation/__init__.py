"""Metrics of predictions against human masks and tags."""
