"""How far registered sections can be trusted, without truth."""
