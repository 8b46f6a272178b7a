"""How much callers with a credential may ask for, counted over all nodes in Postgres."""
