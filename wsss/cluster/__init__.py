"""Commands of this program as jobs of Slurm: plain batch scripts, and what submits them."""
