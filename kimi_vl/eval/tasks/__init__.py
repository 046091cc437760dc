"""One file a benchmark: where its data is, how it is asked, and how it is marked."""
