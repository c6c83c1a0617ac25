"""Linear attention in Triton: the passes, how they are cut and launched, and torch's operators of them."""
