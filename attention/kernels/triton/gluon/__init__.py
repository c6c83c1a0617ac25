"""Passes in Gluon, for widths of 65 to 128 on Hopper cards."""
