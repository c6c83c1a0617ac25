"""How attention is measured, and what follows from it."""
