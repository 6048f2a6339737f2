"""Pure tensor functions on directions and rows; torch and nothing else."""
