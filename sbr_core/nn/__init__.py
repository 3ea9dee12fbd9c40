"""Modules that hold parameters: registrar, generator, projection."""
