"""Changes by commit: stored runs become lines over commits; their steps are found and drawn."""
