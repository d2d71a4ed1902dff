"""Predictions inside label tools: Label Studio asks over HTTP, CVAT calls a function."""
