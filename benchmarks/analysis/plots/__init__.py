"""What all pictures share: their look, and labels that find a free place."""
