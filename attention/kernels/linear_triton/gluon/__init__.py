"""The passes in Gluon, for bfloat16 of widths 65 to 128 on Hopper cards."""
