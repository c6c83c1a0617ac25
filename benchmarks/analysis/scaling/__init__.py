"""The statistics of scaling: units, laws of growth, exponents and crossovers, and how firm each one is."""
