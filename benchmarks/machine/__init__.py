"""What a run finds and leaves: sensors and limits of the machine, cards, and the state of this process."""
