"""How results look in a terminal, drawn by rich."""
