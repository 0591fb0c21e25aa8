"""The live explorer of a generator, in notebooks and in the built book, and the export of its weights."""
