"""Metadata: read it from photographs, correct it for the answer, write it into pictures."""
