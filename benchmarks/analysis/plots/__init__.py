"""What all pictures share: the look of a kernel, axes and marks, and labels that find a free place."""
