"""Linear attention compiled for the CPU at hand: C++, how it is built, and torch's operators around it."""
