"""Servers that answer as the providers do, for tests, demonstrations and load: nothing leaves the machine."""
