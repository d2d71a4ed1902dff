"""Attention between tokens: the functions that models call and recorders see. Imports torch alone."""
