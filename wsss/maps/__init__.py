"""Class maps read from the recorded attention of a transformer."""
