"""Prediction on plain images, without tags."""
