"""The live explorer of a generator, the export of its weights, boxes and exemplars by hand."""
