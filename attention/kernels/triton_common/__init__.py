"""What kernels in Triton share: how a call is cut into tiles and segments, launched, and its tiles moved."""
