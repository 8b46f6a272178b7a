"""Model vendors behind one Protocol; each file speaks one wire and knows no other."""
