"""Catalogs: what each kind needs to connect, how tables are listed and loaded, and what a kind cannot do."""
