"""Modules that hold parameters: registrar, generator, projection, discriminator."""
