"""SMCP: a prototype and features go through a head that is trained along with the encoder."""
