"""The live explorer of a generator, the export of its weights, and a widget that draws boxes by
hand."""
