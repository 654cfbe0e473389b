"""The pure model: runs, documents and what is found in them. Imports no framework."""
