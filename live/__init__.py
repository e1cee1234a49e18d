"""`make live`: a page that runs the embedded model in the reader's browser."""
