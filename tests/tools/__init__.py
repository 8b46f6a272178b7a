"""Tools and the registry that finds them."""
