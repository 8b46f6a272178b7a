"""`./run bench`: how fast the server is, beside a floor below it and a plain app of the same kind, on the machine at hand."""
