"""What kernels in Gluon share: tiles, their rings in shared memory, and the walk of a program."""
