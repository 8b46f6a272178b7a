"""What a model may call: each tool behind one Protocol, found in one registry."""
