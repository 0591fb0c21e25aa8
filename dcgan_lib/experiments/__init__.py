"""What the book measures: one file a chapter, named as its notebook."""
