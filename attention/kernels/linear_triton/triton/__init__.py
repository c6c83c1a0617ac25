"""The passes in Triton, for every width and dtype."""
