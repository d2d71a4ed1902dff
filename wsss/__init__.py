"""Weakly supervised segmentation: pixel masks from image-level tags, by GETAM."""

__version__ = "0.1.0"
