"""The passes in Gluon over states and values, for bfloat16 of widths 65 to 128 on Hopper cards."""
