"""Forms of a call: padding, packed sequences, unequal lengths, grouped heads, states."""
