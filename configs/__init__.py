"""Presets: each begins with the command that runs it."""
