"""nano: the data and the recipe of a Kimi-VL of 19 million parameters that reads, names, counts and points."""
