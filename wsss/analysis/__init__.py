"""What the blocks and heads of a trained network do, and from which block on its attention should be read."""
