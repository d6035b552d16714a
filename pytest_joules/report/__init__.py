"""Telling people: terminal, exports. Nothing here decides."""
