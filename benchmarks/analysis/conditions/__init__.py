"""What disturbed measurements, by their times and by the sensors of the machine."""
