"""Which kernel wins from which length on? All conclusions in one summary; its text, tables and pictures."""
