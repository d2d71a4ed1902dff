"""Data sets: images, tags, masks (for scoring) and synthetic scenes."""
