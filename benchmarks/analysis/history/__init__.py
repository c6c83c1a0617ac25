"""What changed at which commit? Stored runs become lines over commits; their steps are found and drawn."""
