"""One module per product, imported by name: the facade knows none of them."""
