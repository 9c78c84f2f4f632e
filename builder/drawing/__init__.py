"""A folded graph as a picture: what is shown, where it stands, and how it is written."""
