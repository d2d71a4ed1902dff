"""From class maps to pseudo labels: refinement, completion, CRF."""
