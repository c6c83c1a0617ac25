"""The parts of all pictures: the look of a kernel, axes and marks, and labels that find a free place."""
